"""A causal language model on documents, each from its beginning to its end: units by language, an n-gram row beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from llmasos.datasets.text import Document
from llmasos.evaluation.counted import Counting, count_crossed, count_other
from llmasos.evaluation.documents import Window, windows_of
from llmasos.evaluation.measured import Counted
from llmasos.evaluation.predicting import Predicted, predict
from llmasos.evaluation.units import Units, column
from llmasos.tokenizers import vocab_size_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from llmasos.datasets.loading import Split

FEW_DOCUMENTS = 10
"""Of fewer, intervals draw windows instead."""
_encoded: WeakKeyDictionary[Split, tuple[int, list[Window]]] = WeakKeyDictionary()
"""A split's windows of the newest length: a fit measures one split many times."""


@dataclass(frozen=True, slots=True)
class CountedText:
    """What the n-gram model counts; without documents, other parts of the measured text."""

    documents: Sequence[Document] | None = None
    name: str = "the other four fifths of the same text"


@dataclass(frozen=True, slots=True)
class TextFound:
    """Units by language, what they are, and the n-gram model, where one was wanted and there was enough to count."""

    units: dict[str, Units]
    unit: str
    documents: dict[str, int]
    counted: Counted | None
    seconds: float


def measure_text(
    model: torch.nn.Module,
    split: Split,
    length: int,
    *,
    languages: Sequence[str],
    batch_size: int,
    ngram: CountedText | None,
) -> TextFound:
    """
    Args:
        length: tokens that a prediction sees, at most.
        languages: each document's.
        ngram: None: no n-gram model.

    Raises:
        TooLittleData: there is too little text to count.
        WorkerFailed: a loss is not finite.
    """
    tokenizer = split.tokenizer
    windows = _windows(split, length)
    found = predict(model, windows, vocab_size=vocab_size_of(tokenizer), batch_size=batch_size)
    counting = None if ngram is None else _count(windows, ngram, tokenizer)
    units = _units(windows, found, counting)
    document_of = np.asarray([window.document for window in windows])
    few = len(split) < FEW_DOCUMENTS
    by_language: dict[str, Units] = {}
    for name in sorted(set(languages)):
        own = np.asarray([index for index, number in enumerate(document_of) if languages[number] == name])
        part = Units(*(getattr(units, field)[own] for field in Units.__slots__))
        by_language[name] = part if few else part.summed(np.unique(document_of[own], return_inverse=True)[1])
    return TextFound(
        units=by_language,
        unit="windows" if few else "documents",
        documents={name: languages.count(name) for name in by_language},
        counted=None if counting is None or ngram is None else Counted(counting.order, counting.num_tokens, ngram.name),
        seconds=found.seconds,
    )


def _windows(split: Split, length: int) -> list[Window]:
    kept = _encoded.get(split)
    if kept is None or kept[0] != length:
        documents = [thing for thing in split.things if isinstance(thing, Document)]
        kept = (length, list(windows_of(documents, split.tokenizer, length)))
        _encoded[split] = kept
    return kept[1]


def _count(windows: Sequence[Window], ngram: CountedText, tokenizer: Tokenizer) -> Counting | None:
    vocab_size = vocab_size_of(tokenizer)
    if ngram.documents is None:
        return count_crossed(windows, vocab_size)
    return count_other(windows, ngram.documents, tokenizer, vocab_size)


def _units(windows: Sequence[Window], found: Predicted, counting: Counting | None) -> Units:
    """One a window."""
    targets = column(len(window.tokens) - 1 for window in windows)
    return Units(
        nats=found.nats,
        targets=targets,
        hits=found.hits.astype(np.float64),
        judged=targets,
        text_bytes=column(window.text_bytes for window in windows),
        words=column(window.words for window in windows),
        ngram_nats=np.zeros(len(windows)) if counting is None else np.asarray(counting.nats),
    )
