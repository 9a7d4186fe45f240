"""Held-out loss of a causal language model, as sums.

sums = evaluate(model, windows)      # LossSums(loss_sum_fixed=…, num_tokens=…)
sums.perplexity                      # exp(mean nats a token)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from common.errors import WorkerFailed

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


def next_token_nats(model: torch.nn.Module, tokens_BT: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each token but the first, given those before it in its window.

    Args:
        tokens_BT: int64, shape (B, T), T = sequence length + 1.

    Returns:
        float32, shape (B × (T - 1),), nats.
    """
    logits_BLV: torch.Tensor = model(input_ids=tokens_BT[:, :-1]).logits
    targets_N = tokens_BT[:, 1:].reshape(-1)
    return functional.cross_entropy(logits_BLV.float().flatten(0, 1), targets_N, reduction="none")


def evaluate(model: torch.nn.Module, windows: Iterable[npt.NDArray[np.int64]], *, batch_size: int = 1) -> LossSums:
    """Measure `model`, in evaluation mode and float32, on all windows.

    Args:
        windows: int64, each of shape (n + 1,) for n predicted tokens.
        batch_size: so many windows of one length at once on the model's device.

    Returns:
        Losses summed in float64 over all tokens and rounded once.

    Raises:
        WorkerFailed: a loss is not finite, so the model is broken.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total_nats, num_tokens = 0.0, 0
    with torch.no_grad():
        for batch_BT in _stacked(windows, batch_size):
            nats_N = next_token_nats(model, torch.from_numpy(batch_BT).to(device))
            total_nats += float(nats_N.double().sum())
            num_tokens += nats_N.numel()
    model.train(was_training)
    if not math.isfinite(total_nats):
        raise WorkerFailed(
            f"The model's loss over {num_tokens:,} held-out tokens is {total_nats}, expected a finite number.",
            "The model holds weights that are not finite or far too large: tell the operator, and lower the learning rate.",
        )
    return LossSums(to_fixed(total_nats), num_tokens)


def _stacked(windows: Iterable[npt.NDArray[np.int64]], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive windows of one length, together."""
    for _, same in groupby(windows, key=len):
        while rows := list(islice(same, batch_size)):
            yield np.stack(rows)
