"""The lengths of a layer's outputs, which DoRA's magnitudes begin as: the same bits on every machine.

torch's norm adds up in an order that depends on the CPU. Here squares are exact in float64, and halves of a row are added to
each other, element by element, until one number is left; root and float32 are rounded once each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import InvalidConfiguration

_ELEMENTS = 2**22
"""Squares at once: 32 MB."""


def fill_lengths(lengths_O: NDArray[np.float32], weight_OI: NDArray[np.float32], *, layer: str) -> None:
    """Fill `lengths_O` with the L2 norm of each row.

    Raises:
        InvalidConfiguration: a row is 0; `layer` is whose it is.

    Source: Liu et al., arXiv:2402.09353, section 4.1: m begins as the norm of the pre-trained weights.
    """
    outputs, inputs = weight_OI.shape
    rows = max(1, _ELEMENTS // inputs)
    for first in range(0, outputs, rows):
        squares_RI = np.square(weight_OI[first : first + rows].astype(np.float64))
        length = inputs
        while length > 1:
            rest = length // 2
            squares_RI[:, :rest] += squares_RI[:, length - rest : length]
            length -= rest
        lengths_O[first : first + rows] = np.sqrt(squares_RI[:, 0]).astype(np.float32)
    if not lengths_O.all():
        raise InvalidConfiguration(
            f"All weights of output {int(np.argmin(lengths_O))} of layer {layer} are 0; DoRA divides by their length.",
            "Leave the layer out of adapter.target_modules, or use_dora out of the adapter.",
        )
