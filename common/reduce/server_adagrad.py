"""The server optimizer `adagrad`: FedAdagrad with β1 = 0, as in the paper's experiments, in Flower and in torch.optim.Adagrad.

    v = v + (Δ × Δ)                         at first initial_square
    u = lr × (Δ ÷ (√v + τ))

Source: Reddi et al., arXiv:2003.00295, algorithm 2 (v₋₁ ≥ τ²); Duchi et al. 2011. Default τ 0.001: the paper's. torch and
Flower start from v = 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.codecs.base import Float32s
from common.plan import server_optimizers as plan
from common.reduce.server_optimizer import Stepping


class ServerAdagradStep(Stepping):
    """Each float32 operation rounded once."""

    def __init__(self, section: plan.ServerAdagrad) -> None:
        super().__init__(section.learning_rate)
        self.initial = (float(section.initial_square),)
        self._tau = np.float32(float(section.tau))

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        (square_B,) = slots
        room_B = self._room[: len(combined_B)]
        np.multiply(combined_B, combined_B, out=room_B)
        np.add(square_B, room_B, out=square_B)
        np.sqrt(square_B, out=room_B)
        np.add(room_B, self._tau, out=room_B)
        np.divide(combined_B, room_B, out=combined_B)
        np.multiply(combined_B, self._rate, out=combined_B)
