"""Tasks: what a model learns, by the name that a plan gives it.

base.py        what every task is: batches of rows, and the loss of each target in them
registry.py    a plan's task → its objective
causal_lm.py   the next token
"""
