"""The n-gram row of an evaluation: what counting reaches on the very windows that the model was measured on.

Counted is other text that is named; without any, the measured text itself in five parts, each part measured by a model that
counted the other four, so that no document is measured by one that saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmasos.datasets.text import Document
from llmasos.evaluation.documents import Window, windows_of
from llmasos.evaluation.ngram import MAX_TOKENS, Floats, Ints, NgramModel, default_order, train_ngram

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PARTS = 5
LONG = 2**20


@dataclass(frozen=True, slots=True)
class Counting:
    """Nats of each window, and what was counted for them; `num_tokens` of one model."""

    nats: Floats
    order: int
    num_tokens: int
    crossed: bool
    """Whether the text was the measured one, in parts."""


def count_other(
    windows: Sequence[Window], documents: Sequence[Document], tokenizer: Tokenizer, vocab_size: int
) -> Counting:
    """Count `documents`, at most MAX_TOKENS of their tokens from the first on, and measure all windows.

    Raises:
        TooLittleData: they have no more tokens than the longest n-gram.
    """
    text = _stream(list(windows_of(documents, tokenizer, LONG)))[:MAX_TOKENS]
    model = train_ngram(text, vocab_size=vocab_size)
    return Counting(_nats(model, windows), model.order, model.num_tokens, crossed=False)


def count_crossed(windows: Sequence[Window], vocab_size: int) -> Counting | None:
    """Measure each fifth of the windows by a model of the others; None where these are too few to count anything.

    Parts are of whole documents, or of neighbouring windows where there are fewer than five documents.
    """
    part_of = _parts(windows)
    nats = np.zeros(len(windows))
    counted = 0
    for part in range(PARTS):
        inside = [index for index, one in enumerate(part_of) if one == part]
        text = _stream([window for window, one in zip(windows, part_of, strict=True) if one != part])[:MAX_TOKENS]
        if len(text) <= default_order(vocab_size):
            return None
        model = train_ngram(text, vocab_size=vocab_size)
        nats[inside] = _nats(model, [windows[index] for index in inside])
        counted = max(counted, model.num_tokens)
    return Counting(nats, default_order(vocab_size), counted, crossed=True)


def _parts(windows: Sequence[Window]) -> list[int]:
    documents = windows[-1].document + 1
    if documents >= PARTS:
        return [window.document % PARTS for window in windows]
    return [index * PARTS // len(windows) for index in range(len(windows))]


def _stream(windows: Sequence[Window]) -> Ints:
    """The predicted tokens of windows one after the other, after what the first of them is predicted from."""
    parts = [window.tokens[1:] for window in windows]
    return np.concatenate([windows[0].tokens[:1], *parts]) if parts else np.empty(0, np.int64)


def _nats(model: NgramModel, windows: Sequence[Window]) -> Floats:
    """Sum of each window."""
    if not windows:
        return np.empty(0)
    nats = model.nats(window.tokens for window in windows)
    bounds = np.cumsum([0, *(len(window.tokens) - 1 for window in windows[:-1])])
    return np.asarray(np.add.reduceat(nats, bounds))
