"""The server optimizers `adam` and `adamw`: torch.optim's formulas over the pseudo-gradient.

    m = (β1 × m) + ((1−β1) × Δ)             v = (β2 × v) + ((1−β2) × (Δ × Δ))
    u = s1 × (m ÷ ((√v ÷ s2) + ε))          s1 = lr ÷ (1 − β1^t)    s2 = √(1 − β2^t)

Without bias correction s1 = lr and s2 = 1: FedAdam of Reddi et al., arXiv:2003.00295, algorithm 2, ε its τ, from v = 0.
β^t is a running product in float64 over the rounds that were committed, kept in server_state: no power is taken.

Sources: Kingma and Ba, arXiv:1412.6980; Loshchilov and Hutter, arXiv:1711.05101. Defaults β1 0.9, β2 0.99, ε 0.001: those of
Reddi et al. for federated rounds; torch's β2 0.999 and ε 1e-8 are for thousands of steps on gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from common.codecs.base import Float32s
from common.errors import WrongTensors
from common.plan import server_optimizers as plan
from common.reduce.server_optimizer import Scalars, Stepping, rest_of


class ServerAdamStep(Stepping):
    """Twelve float32 operations an element, each rounded once."""

    def __init__(self, section: plan.ServerAdam | plan.ServerAdamW) -> None:
        super().__init__(section.learning_rate, slots=2)
        self._section = section
        self._beta1, self._rest1 = np.float32(float(section.beta1)), rest_of(section.beta1)
        self._beta2, self._rest2 = np.float32(float(section.beta2)), rest_of(section.beta2)
        self._epsilon = np.float32(float(section.epsilon))
        self._correction = np.float32(1.0)

    def begin(self, before: Scalars | None) -> Scalars:
        powers = (1.0, 1.0) if before is None else before
        for name, value in zip(self._section.scalars, powers, strict=True):
            if not 0.0 <= value <= 1.0:
                raise WrongTensors(f"The server_state says {value} for {name}, expected a number from 0 to 1.")
        power1, power2 = powers[0] * float(self._section.beta1), powers[1] * float(self._section.beta2)
        if self._section.bias_correction:
            self._rate = np.float32(float(self._section.learning_rate) / (1.0 - power1))
            self._correction = np.float32(math.sqrt(1.0 - power2))
        return power1, power2

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        mean_B, square_B = slots
        room_B = self._room[: len(combined_B)]
        np.multiply(mean_B, self._beta1, out=mean_B)
        np.multiply(combined_B, self._rest1, out=room_B)
        np.add(mean_B, room_B, out=mean_B)
        np.multiply(square_B, self._beta2, out=square_B)
        np.multiply(combined_B, combined_B, out=room_B)
        np.multiply(room_B, self._rest2, out=room_B)
        np.add(square_B, room_B, out=square_B)
        np.sqrt(square_B, out=room_B)
        np.divide(room_B, self._correction, out=room_B)
        np.add(room_B, self._epsilon, out=room_B)
        np.divide(mean_B, room_B, out=combined_B)
        np.multiply(combined_B, self._rate, out=combined_B)


class ServerAdamWStep(ServerAdamStep):
    """Adam's update, minus decay × base, with decay = float32(lr × weight_decay), the product taken in float64."""

    def __init__(self, section: plan.ServerAdamW) -> None:
        super().__init__(section)
        self._decay = np.float32(float(section.learning_rate) * float(section.weight_decay))

    def update(self, combined_B: Float32s, base_B: Float32s, slots: Sequence[Float32s]) -> None:
        super().update(combined_B, base_B, slots)
        room_B = self._room[: len(combined_B)]
        np.multiply(base_B, self._decay, out=room_B)
        np.subtract(combined_B, room_B, out=combined_B)
