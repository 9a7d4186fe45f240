"""The server optimizers `sgd`, `momentum` and `nesterov`: torch.optim.SGD's formulas over the pseudo-gradient.

Sources: Reddi et al., arXiv:2003.00295, algorithm 1 with SGD; with learning rate 1 FedAvg. Momentum: Hsu et al.,
arXiv:1909.06335 (FedAvgM). Nesterov: Sutskever et al. 2013 as torch has it, DiLoCo's outer optimizer, Douillard et al.,
arXiv:2311.08105, learning rate 0.7, momentum 0.9.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.codecs.base import Float32s
from common.plan import server_optimizers as plan
from common.reduce.server_optimizer import Stepping


class ServerSGDStep(Stepping):
    """One float32 operation, rounded once: update = lr × Δ; then new = base + update."""

    def __init__(self, section: plan.ServerSGD) -> None:
        super().__init__(section.learning_rate)

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        np.multiply(combined_B, self._rate, out=combined_B)


class ServerMomentumStep(Stepping):
    """b = (β × b) + Δ; update = lr × b. Torch's SGD without dampening; its first b is Δ, as from zeros here."""

    def __init__(self, section: plan.ServerMomentum | plan.ServerNesterov) -> None:
        super().__init__(section.learning_rate, slots=1)
        self._momentum = np.float32(float(section.momentum))

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        momentum_B = self._accumulated(combined_B, slots)
        np.multiply(momentum_B, self._rate, out=combined_B)

    def _accumulated(self, combined_B: Float32s, slots: Sequence[Float32s]) -> Float32s:
        (momentum_B,) = slots
        np.multiply(momentum_B, self._momentum, out=momentum_B)
        np.add(momentum_B, combined_B, out=momentum_B)
        return momentum_B


class ServerNesterovStep(ServerMomentumStep):
    """b = (β × b) + Δ; update = lr × (Δ + (β × b))."""

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        momentum_B = self._accumulated(combined_B, slots)
        ahead_B = self._room[: len(combined_B)]
        np.multiply(momentum_B, self._momentum, out=ahead_B)
        np.add(combined_B, ahead_B, out=combined_B)
        np.multiply(combined_B, self._rate, out=combined_B)
