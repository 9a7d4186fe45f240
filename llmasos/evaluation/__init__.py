"""Measuring models: on held-out data in sums that institutions can add up exactly, and beside what else could be.

perplexity.py   held-out loss of any task, as every institution reports it
measure.py      the one way in which people measure: `model.evaluate`, `fit`'s validation, `llmasos evaluate`
                causal.py (documents.py → predicting.py and counted.py) or targets.py (rows) → units.py → measured.py
answers.py      labels, answers to questions and written targets, scored
held_out.py     what institutions hold out, by everything that the task has
folder.py       `llmasos evaluate`; kinds.py: what a model folder can be measured by
ngram.py        what counting alone reaches: modified Kneser-Ney
metrics.py      perplexity per token, word, byte; bits per byte; accuracy, F1, SQuAD
overlap.py      BLEU, chrF, ROUGE        bootstrap.py   confidence intervals
references.py   what a model writes after prompts, scored        harness.py   lm-eval's tasks
"""
