"""Measuring models: on held-out text in sums that institutions can add up exactly, and beside what else could be.

perplexity.py   held-out loss of a causal language model, as every institution reports it
ngram.py        what counting alone reaches: modified Kneser-Ney
metrics.py      perplexity per token, word, byte; bits per byte; accuracy, F1, SQuAD
overlap.py      BLEU, chrF, ROUGE        bootstrap.py   confidence intervals
folder.py       `llmasos evaluate`: documents.py → predicting.py and counted.py → numbers by language
references.py   what a model writes after prompts, scored        harness.py   lm-eval's tasks
"""
