"""What server optimizers offer to `reduce_round`: the outer step, element by element, of any elements at a time.

    after = optimizer.begin(before)                  once a round: scalars of the state before and after
    optimizer.update(combined_B, base_B, slots)      block after block

They never see single deltas, nor how the update travels. With Δ the combined delta the pseudo-gradient is −Δ, so what
torch.optim subtracts is added here. Every formula is in docs/protocol.md#server-optimizers, operation by operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

import numpy as np

from common.codecs.base import Float32s
from common.reduce.loops import BLOCK_ELEMENTS

Scalars = tuple[float, ...]


class ServerOptimizer(Protocol):
    """The outer step: from the combined delta to what is added to the base model; the reducer adds it."""

    @property
    def initial(self) -> Scalars:
        """What each slot's numbers are before the first commit."""
        ...

    def begin(self, before: Scalars | None) -> Scalars:
        """Take the scalars of the state that the round starts from, None where there is none; those of the next one.

        Raises:
            WrongTensors: numbers that no round of this optimizer leaves.
        """
        ...

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        """Make `combined_B` in place what is added, and the slots what the next round finds.

        Args:
            combined_B: the combined delta, float32, shape (B,), B at most BLOCK_ELEMENTS.
            base_B: the base model's numbers; only to be read.
            slots: one array of shape (B,) for each of the plan section's `slots`.
        """
        ...


class Stepping:
    """Common to all: a learning rate and room to compute in. Scalars are none and slots start at zero unless said otherwise."""

    initial: Scalars = ()

    def __init__(self, learning_rate: Decimal, *, slots: int = 0) -> None:
        self._rate = np.float32(float(learning_rate))
        self._room: Float32s = np.empty(BLOCK_ELEMENTS, dtype=np.float32)
        self.initial = tuple(0.0 for _ in range(slots))

    def begin(self, before: Scalars | None) -> Scalars:
        """No scalars."""
        return ()


def rest_of(decay: Decimal) -> np.float32:
    """1 − decay: one float64 subtraction, then one rounding to float32."""
    return np.float32(1.0 - float(decay))
