"""The server optimizer `yogi`: FedYogi.

    m = (β1 × m) + ((1−β1) × Δ)             q = Δ × Δ
    v = v − ((1−β2) × q) where v > q, v + ((1−β2) × q) where v < q, else v; at first initial_square
    u = lr × (m ÷ (√v + τ))

Source: Reddi et al., arXiv:2003.00295, algorithm 2 (v₋₁ ≥ τ², no bias correction); Zaheer et al. 2018. Defaults: the paper's
β1 0.9, β2 0.99, τ 0.001. Flower's FedYogi starts from v = 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.codecs.base import Float32s
from common.plan import server_optimizers as plan
from common.reduce.loops import BLOCK_ELEMENTS
from common.reduce.server_optimizer import Stepping, rest_of


class ServerYogiStep(Stepping):
    """Each float32 operation rounded once."""

    def __init__(self, section: plan.ServerYogi) -> None:
        super().__init__(section.learning_rate)
        self.initial = (0.0, float(section.initial_square))
        self._beta1, self._rest1 = np.float32(float(section.beta1)), rest_of(section.beta1)
        self._rest2 = rest_of(section.beta2)
        self._tau = np.float32(float(section.tau))
        self._shrinks = np.empty(BLOCK_ELEMENTS, dtype=np.bool_)
        self._grows = np.empty(BLOCK_ELEMENTS, dtype=np.bool_)

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        mean_B, square_B = slots
        room_B = self._room[: len(combined_B)]
        shrinks_B, grows_B = self._shrinks[: len(combined_B)], self._grows[: len(combined_B)]
        np.multiply(mean_B, self._beta1, out=mean_B)
        np.multiply(combined_B, self._rest1, out=room_B)
        np.add(mean_B, room_B, out=mean_B)
        np.multiply(combined_B, combined_B, out=room_B)
        np.greater(square_B, room_B, out=shrinks_B)
        np.less(square_B, room_B, out=grows_B)
        np.multiply(room_B, self._rest2, out=room_B)
        np.subtract(square_B, room_B, out=square_B, where=shrinks_B)
        np.add(square_B, room_B, out=square_B, where=grows_B)
        np.sqrt(square_B, out=room_B)
        np.add(room_B, self._tau, out=room_B)
        np.divide(mean_B, room_B, out=combined_B)
        np.multiply(combined_B, self._rate, out=combined_B)
