"""Tasks: what a model learns, by the name that a plan gives it.

base.py             what every task is: batches of rows, the loss of each target in them, and how data become such batches
registry.py         a plan's task → its recipe and its objective
windows.py          tasks on running text
  causal_lm.py        the next token
records.py          tasks on records with fields
  seq2seq.py          a target for a source
  classification.py   a label for a text
encoding.py         padding, cutting, labels
"""
