"""Tasks: what a model learns, by the name that a plan gives it.

base.py             what every task is: batches of rows, the loss of each target in them, and how data become such batches
registry.py         a plan's task → its recipe and its objective
windows.py          tasks on running text
  causal_lm.py        the next token
  masked_lm.py        hidden tokens
  next_sentence.py    hidden tokens, and whether one segment follows another
records.py          tasks on records with fields
  seq2seq.py          a target for a source
  classification.py   a label for a text
  question_answering.py   where in a text the answer stands
  instruction.py      answers in a conversation
  preference.py       the better of two answers
mixture.py          several tasks on one model
plugin.py           a task from an entry point of this installation
sides.py            one side of the split as a row file
encoding.py         padding, cutting, labels
"""
