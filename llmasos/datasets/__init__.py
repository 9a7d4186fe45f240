"""Datasets: from an institution's folder of text or records to batches.

    data = llmasos.datasets.load_dataset("./corpus", tokenizer=tokenizer)         data.train, data.validation, data.test

source.py      where an institution's data stand
text.py        folder → documents, in one order on every file system; split into training and held-out by content
formats.py     one reader a file format
records.py     records with fields, for tasks that need more than text
packed.py      what the two files below have in common
tokens.py      documents → packed token file → batches that any step can be recomputed from
rows.py        encoded examples → packed row file
draws.py       chance as a pure function of seed and step
encodings.py   text in another encoding than UTF-8, noticed
loading.py     load_dataset: folder → three splits that a model can be fitted to and measured on
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos.datasets.loading import Dataset, Split, load_dataset

__all__ = ["Dataset", "Split", "load_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("llmasos.datasets.loading"), name)
