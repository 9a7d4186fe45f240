"""The n-gram row of a simulation: what counting alone reaches on everybody's held-out text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmasos.evaluation.ngram import MAX_TOKENS, Ints, NgramModel, train_ngram
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
    with open_corpora(prepared, institutions, tokens) as corpora:
        text = _training_text(corpora.values(), max_tokens)
        total = sum(one.train.count for one in corpora.values())
        vocab_size = max(one.train.vocab_size for one in corpora.values())
        model = train_ngram(text, vocab_size=vocab_size)
        scores = scores_from_sums({name: _measured(model, one) for name, one in corpora.items()})
    return Counted(scores, model.order, len(text), total - len(text))


def _training_text(corpora: Collection[Corpus], max_tokens: int) -> Ints:
    total = sum(one.train.count for one in corpora)
    share = min(1.0, max_tokens / total)
    return np.concatenate([one.train.read(0, int(one.train.count * share)) for one in corpora])


def _measured(model: NgramModel, corpus: Corpus) -> tuple[int, int]:
    """Loss, nats × 2^16, and over how many tokens."""
    nats = model.nats(corpus.held_out_windows())
    return round(float(nats.sum()) * LOSS_SCALE), len(nats)
