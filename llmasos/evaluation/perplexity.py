"""Held-out loss of a model, as sums.

sums = evaluate(model, objective, rows)      # LossSums(loss_sum_fixed=…, num_tokens=…)
sums.perplexity                      # exp(mean nats a token)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import torch

from common.errors import WorkerFailed
from llmasos.tasks.base import Batch, Objective, stacked, tensors_of
from llmasos.training.ranks import ALONE, Ranks

LOSS_SCALE = 2**16
"""Losses travel as integers, nats × 2^16 (docs/protocol.md): sums are exact and can be masked later."""


class LossSums(NamedTuple):
    """Loss over some tokens. Sums of several institutions add up element by element."""

    loss_sum_fixed: int
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean loss; infinite where no token was measured."""
        if self.num_tokens == 0:
            return math.inf
        return math.exp(self.loss_sum_fixed / LOSS_SCALE / self.num_tokens)


def to_fixed(nats: float) -> int:
    """Nats to the nearest integer of nats × 2^16."""
    return round(nats * LOSS_SCALE)


def evaluate(model: torch.nn.Module, objective: Objective, rows: Iterable[Batch], *, batch_size: int = 1) -> LossSums:
    """Measure `model`, in evaluation mode and float32, on all rows.

    Args:
        rows: batches of one row each.
        batch_size: so many rows of the same shapes at once on the model's device.

    Returns:
        Losses summed in float64 over all targets and rounded once.

    Raises:
        WorkerFailed: a loss is not finite, so the model is broken.
    """
    return loss_sums(*measure(model, objective, rows, batch_size=batch_size))


def measure(
    model: torch.nn.Module, objective: Objective, rows: Iterable[Batch], *, batch_size: int = 1, ranks: Ranks = ALONE
) -> tuple[float, int]:
    """As `evaluate`, nats and targets; of this rank's part of the rows, where there are several: parts add up."""
    rows = iter(rows)
    if (first := next(rows, None)) is None:
        return 0.0, 0
    device = next(weight.device for weight in model.parameters() if not weight.is_meta)
    was_training = model.training
    model.eval()
    total_nats, targets = 0.0, 0
    with torch.no_grad():
        mine = stacked(ranks.every(chain([first], rows)), batch_size)
        for batch, counts in ranks.in_step(mine, first):
            nats_N = objective.nats(model, tensors_of(batch, device))
            if not counts:
                continue
            total_nats += float(nats_N.double().sum())
            targets += nats_N.numel()
    model.train(was_training)
    return total_nats, targets


def loss_sums(total_nats: float, targets: int) -> LossSums:
    """Rounded once.

    Raises:
        WorkerFailed: a loss is not finite, so the model is broken.
    """
    if not math.isfinite(total_nats):
        raise WorkerFailed(
            f"The model's loss over {targets:,} held-out tokens is {total_nats}, expected a finite number.",
            "The model holds weights that are not finite or far too large: tell the operator, and lower the learning rate.",
        )
    return LossSums(to_fixed(total_nats), targets)
