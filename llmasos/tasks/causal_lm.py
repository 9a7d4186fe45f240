"""Causal language models: each token, given those before it in its window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from llmasos.datasets.draws import Dice
from llmasos.tasks.base import Batch, Tensors
from llmasos.tasks.encoding import LABELS, NO_LABEL, inputs, padded

TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class NextTokenWindows:
    """Windows of `sequence_length` inputs and as many targets, one further on."""

    sequence_length: int

    @property
    def window(self) -> int:
        return self.sequence_length + 1

    @property
    def most_targets(self) -> int:
        return self.sequence_length

    def row(self, window_T: npt.NDArray[np.int64], dice: Dice) -> Batch:
        return window_row(window_T)


@dataclass(frozen=True, slots=True)
class LabelledWindows(NextTokenWindows):
    """The same as rows of other causal tasks are, so that they can stand beside them in a mixture."""

    pad: int

    def row(self, window_T: npt.NDArray[np.int64], dice: Dice) -> Batch:
        labels = padded(window_T[1:], self.sequence_length, NO_LABEL)
        return {**inputs(window_T[:-1], self.sequence_length, self.pad), LABELS: labels}


class NextToken:
    """Cross entropy of each token but the first of a row; a row is `tokens`, int64, shape (T + 1,)."""

    def targets(self, batch: Batch) -> int:
        rows, width = batch[TOKENS].shape
        return int(rows * (width - 1))

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        return next_token_nats(model, batch[TOKENS])


def window_row(window_T: npt.NDArray[np.int64]) -> Batch:
    """A window of tokens as a batch of one row."""
    return {TOKENS: window_T[np.newaxis]}


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
