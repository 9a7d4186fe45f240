"""Datasets: from an institution's folder of text to batches of tokens.

text.py      folder → documents, in one order on every file system; split into training and held-out by content
formats.py   one reader a file format
tokens.py    documents → packed token file → batches that any step can be recomputed from
"""
