"""The server optimizer `sgd`: new = base + learning_rate · combined; with learning rate 1 this is FedAvg.

Source: Reddi et al., arXiv:2003.00295, algorithm 1 with SGD.
"""

from __future__ import annotations

import numpy as np

from common.codecs.base import Float32s


class ServerSGDStep:
    """One float32 operation, rounded once: update = lr · combined; then new = base + update."""

    def __init__(self, learning_rate: float) -> None:
        """
        Args:
            learning_rate: rounded here, once, to float32.
        """
        self._learning_rate = np.float32(learning_rate)

    def update(self, combined_B: Float32s) -> None:
        np.multiply(combined_B, self._learning_rate, out=combined_B)
