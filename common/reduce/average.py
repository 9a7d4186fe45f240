"""Averages of deltas, taken delta after delta in the memory of one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.codecs.base import Float32s
from common.reduce.loops import make_loops
from common.reduce.rule import Average, Pieces


class Averager:
    """mean_N = float32(Σ c_i · d_i / divisor).

    The sum starts at +0.0 and is taken in float64, institution after institution. Where c is a num_tokens, each product is
    exact: n < 2^29 has 29 bits, a float32 24, a float64 53.
    """

    def __init__(self, average: Average, max_elements: int) -> None:
        self._average = average
        self._sum = np.empty(max_elements, dtype=np.float64)
        self._loops = make_loops()

    def combine(self, deltas: Iterable[Pieces], elements: int) -> Float32s:
        """The average over one window.

        Args:
            deltas: of all institutions whose coefficient is not 0, in their order.

        Returns:
            float32, shape (elements,), writable; valid until the next call.
        """
        sum_N = self._sum[:elements]
        sum_N.fill(0.0)
        coefficients = (coefficient for coefficient in self._average.coefficients if coefficient != 0.0)
        for coefficient, pieces in zip(coefficients, deltas, strict=True):
            done = 0
            for piece_M in pieces:
                self._loops.add_product(sum_N[done : done + len(piece_M)], coefficient, piece_M)
                done += len(piece_M)
        return self._loops.quotients(sum_N, self._average.divisor)
