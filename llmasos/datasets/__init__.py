"""Datasets: from an institution's folder of text or records to batches.

source.py    where an institution's data stand
text.py      folder → documents, in one order on every file system; split into training and held-out by content
formats.py   one reader a file format
records.py   records with fields, for tasks that need more than text
tokens.py    documents → packed token file → batches that any step can be recomputed from
rows.py      encoded examples → packed row file
draws.py     chance as a pure function of seed and step
"""
