"""Held-out loss as sums: exact by definition, the same for any batch."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.errors import WorkerFailed  # noqa: E402
from common.plan.architectures import GPT2  # noqa: E402
from llmasos.evaluation.perplexity import LOSS_SCALE, LossSums, evaluate, to_fixed  # noqa: E402
from llmasos.models.build import build_model  # noqa: E402
from llmasos.tasks.base import Batch  # noqa: E402
from llmasos.tasks.causal_lm import NextToken, window_row  # noqa: E402

pytestmark = pytest.mark.torch


def a_model(dropout: str = "0") -> torch.nn.Module:
    plan = GPT2(n_layer=1, n_head=2, n_embd=32, n_positions=32, dropout=dropout)
    return build_model(plan, vocab_size=257, seed=1)


def windows(*lengths: int) -> list[np.ndarray]:
    return [np.arange(length, dtype=np.int64) * 7 % 257 for length in lengths]


def rows(*lengths: int) -> list[Batch]:
    return [window_row(window) for window in windows(*lengths)]


def test_sums_are_those_of_each_token_alone() -> None:
    model = a_model().eval()
    total = 0.0
    with torch.no_grad():
        for window in windows(33, 33, 9):
            logits = model(input_ids=torch.from_numpy(window[None, :-1])).logits[0].double()
            total -= float(logits.log_softmax(-1)[torch.arange(len(window) - 1), torch.from_numpy(window[1:])].sum())
    sums = evaluate(model, NextToken(), rows(33, 33, 9))
    assert sums.num_tokens == 32 + 32 + 8
    assert sums.loss_sum_fixed / LOSS_SCALE == pytest.approx(total, rel=1e-6)


def test_the_batch_size_does_not_change_what_is_measured() -> None:
    model, lengths = a_model(), (33, 33, 33, 33, 33, 5)
    one, three = (
        evaluate(model, NextToken(), rows(*lengths)),
        evaluate(model, NextToken(), rows(*lengths), batch_size=3),
    )
    assert three.num_tokens == one.num_tokens
    assert three.loss_sum_fixed == pytest.approx(one.loss_sum_fixed, abs=50)


def test_evaluation_drops_nothing_and_leaves_the_mode_as_it_was() -> None:
    model = a_model(dropout="0.5").train()
    first = evaluate(model, NextToken(), rows(33))
    assert evaluate(model, NextToken(), rows(33)) == first
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_a_broken_model_is_told_as_such() -> None:
    model = a_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("inf"))
    with pytest.raises(WorkerFailed, match=r"loss over 32 held-out tokens is nan, expected a finite number"):
        evaluate(model, NextToken(), rows(33))


def test_perplexity_of_nothing_is_infinite() -> None:
    assert LossSums(0, 0).perplexity == math.inf
    assert LossSums(to_fixed(2.0) * 10, 10).perplexity == pytest.approx(math.exp(2.0))


def test_fixed_point_rounds_to_the_nearest() -> None:
    assert to_fixed(1.0) == 65536
    assert to_fixed(0.4 / 65536) == 0
    assert to_fixed(0.6 / 65536) == 1
