"""The n-gram row of a simulation: what counting alone reaches on everybody's held-out text.

torch is imported inside the functions: a simulation that fails before needs none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UsageError
from common.plan.model import Plan
from llmasos.datasets.tokens import TokenFile
from llmasos.evaluation.ngram import MAX_TOKENS, Ints, NgramModel, train_ngram
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
    with open_corpora(prepared, institutions, tokens) as corpora:
        files = [_token_file(one) for one in corpora.values()]
        text = _training_text(files, max_tokens)
        total = sum(file.count for file in files)
        model = train_ngram(text, vocab_size=max(file.vocab_size for file in files))
        scores = scores_from_sums({name: _measured(model, one) for name, one in corpora.items()})
    return Counted(scores, model.order, len(text), total - len(text))


def _token_file(corpus: Corpus) -> TokenFile:
    from llmasos.tasks.windows import Windows

    if not isinstance(corpus.train, Windows):
        raise UsageError(f"An n-gram model counts running text, not what task {corpus.plan.task.type} learns from.")
    return corpus.train.file


def _training_text(files: Collection[TokenFile], max_tokens: int) -> Ints:
    share = min(1.0, max_tokens / sum(file.count for file in files))
    return np.concatenate([file.read(0, int(file.count * share)) for file in files])


def _measured(model: NgramModel, corpus: Corpus) -> tuple[int, int]:
    """Loss, nats × 2^16, and over how many tokens."""
    from llmasos.tasks.causal_lm import TOKENS

    nats = model.nats(row[TOKENS][0] for row in corpus.held_out_rows())
    return round(float(nats.sum()) * LOSS_SCALE), len(nats)
