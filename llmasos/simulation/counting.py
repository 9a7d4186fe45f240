"""The n-gram row of a simulation: what counting alone reaches on everybody's held-out text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmasos.evaluation.ngram import MAX_TOKENS, NgramModel, train_ngram
from llmasos.preparation import Prepared
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.final_model import open_corpora
from llmasos.simulation.results import Counted, scores_from_sums
from llmasos.simulation.watch import LOSS_SCALE

if TYPE_CHECKING:
    from llmasos.training.corpus import Corpus


def count(
    prepared: Prepared, institutions: Sequence[InstitutionFolder], tokens: Path, *, max_tokens: int = MAX_TOKENS
) -> Counted:
    """An n-gram model of all institutions' training text, measured on the windows that every model is measured on.

    Args:
        tokens: where encoded text is kept and found again.
        max_tokens: of more training text, the beginning of each institution's is counted, as much as its share.
    """

    def each() -> Iterator[tuple[str, Corpus]]:
        for one in institutions:  # one at a time: there may be more of them than files that may be open
            with open_corpora(prepared, [one], tokens) as corpora:
                yield one.name, corpora[one.name]

    sizes = [(corpus.train.count, corpus.train.vocab_size) for _, corpus in each()]
    total = sum(size for size, _ in sizes)
    share = min(1.0, max_tokens / total)
    text = np.concatenate([corpus.train.read(0, int(corpus.train.count * share)) for _, corpus in each()])
    model = train_ngram(text, vocab_size=max(vocab_size for _, vocab_size in sizes))
    scores = scores_from_sums({name: _measured(model, corpus) for name, corpus in each()})
    return Counted(scores, model.order, len(text), total - len(text))


def _measured(model: NgramModel, corpus: Corpus) -> tuple[int, int]:
    """Loss, nats × 2^16, and over how many tokens."""
    nats = model.nats(corpus.held_out_windows())
    return round(float(nats.sum()) * LOSS_SCALE), len(nats)
