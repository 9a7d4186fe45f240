"""The server optimizer `sgd`: new = base + learning_rate · combined; with learning rate 1 this is FedAvg.

Source: Reddi et al., arXiv:2003.00295, algorithm 1 with SGD.
"""

from __future__ import annotations

import numpy as np

from common.codecs.base import Float32s


class ServerSGDStep:
    """Two float32 operations, each rounded once: step = lr · combined; new = base + step."""

    def __init__(self, learning_rate: float) -> None:
        """
        Args:
            learning_rate: rounded here, once, to float32.
        """
        self._learning_rate = np.float32(learning_rate)

    def step(self, base_B: Float32s, combined_B: Float32s) -> None:
        np.multiply(combined_B, self._learning_rate, out=combined_B)
        np.add(base_B, combined_B, out=base_B)
