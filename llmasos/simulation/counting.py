"""The n-gram row of a simulation: what counting alone reaches on everybody's held-out text.

torch is imported inside the functions: a simulation that fails before needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UsageError
from common.plan.model import Plan
from llmasos.datasets.tokens import TokenFile
from llmasos.evaluation.ngram import MAX_TOKENS, NgramModel, train_ngram
from llmasos.preparation import Prepared
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.final_model import open_corpora
from llmasos.simulation.results import Counted, scores_from_sums
from llmasos.simulation.watch import LOSS_SCALE

if TYPE_CHECKING:
    from llmasos.training.corpus import Corpus


def can_count(plan: Plan) -> bool:
    """Whether the plan's losses are of next tokens, which alone an n-gram model predicts."""
    return plan.task.type == "causal-lm"


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

    sizes = [(file.count, file.vocab_size) for _, corpus in each() for file in [_token_file(corpus)]]
    total = sum(size for size, _ in sizes)
    share = min(1.0, max_tokens / total)
    files = (_token_file(corpus) for _, corpus in each())
    text = np.concatenate([file.read(0, int(file.count * share)) for file in files])
    model = train_ngram(text, vocab_size=max(vocab_size for _, vocab_size in sizes))
    scores = scores_from_sums({name: _measured(model, corpus) for name, corpus in each()})
    return Counted(scores, model.order, len(text), total - len(text))


def _token_file(corpus: Corpus) -> TokenFile:
    from llmasos.tasks.windows import Windows

    if not isinstance(corpus.train, Windows):
        raise UsageError(f"An n-gram model counts running text, not what task {corpus.plan.task.type} learns from.")
    return corpus.train.file


def _measured(model: NgramModel, corpus: Corpus) -> tuple[int, int]:
    """Loss, nats × 2^16, and over how many tokens."""
    from llmasos.tasks.causal_lm import TOKENS

    nats = model.nats(row[TOKENS][0] for row in corpus.held_out_rows())
    return round(float(nats.sum()) * LOSS_SCALE), len(nats)
