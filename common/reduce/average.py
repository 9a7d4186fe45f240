"""Averages of deltas, taken delta after delta in the memory of one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.codecs.base import Float32s
from common.reduce.rule import BLOCK_ELEMENTS, Average, Pieces
from common.reduce.scalar import Float64s


class Averager:
    """mean_N = float32(Σ c_i · d_i / divisor).

    The sum starts at +0.0 and is taken in float64, institution after institution. Where c is a num_tokens, each product is
    exact: n < 2^29 has 29 bits, a float32 24, a float64 53.
    """

    def __init__(self, average: Average, max_elements: int) -> None:
        self._average = average
        self._sum = np.empty(max_elements, dtype=np.float64)
        self._product = np.empty(min(max_elements, BLOCK_ELEMENTS), dtype=np.float64)

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
                self._add(sum_N[done : done + len(piece_M)], coefficient, piece_M)
                done += len(piece_M)
        return self._mean(sum_N)

    def _mean(self, sum_N: Float64s) -> Float32s:
        # Over the sums themselves: what a block of means covers was used by then, and chunks of 4-bit numbers are large.
        mean_N = self._sum.view(np.float32)[: len(sum_N)]
        for start in range(0, len(sum_N), BLOCK_ELEMENTS):
            quotient_B = self._product[: len(sum_N[start : start + BLOCK_ELEMENTS])]
            np.divide(sum_N[start : start + BLOCK_ELEMENTS], self._average.divisor, out=quotient_B)
            np.copyto(mean_N[start : start + BLOCK_ELEMENTS], quotient_B, casting="same_kind")
        return mean_N

    def _add(self, sum_M: Float64s, coefficient: float, delta_M: Float32s) -> None:
        # In blocks, so that the products stay in the processor's cache.
        for start in range(0, len(delta_M), BLOCK_ELEMENTS):
            delta_B = delta_M[start : start + BLOCK_ELEMENTS]
            product_B = self._product[: len(delta_B)]
            sum_B = sum_M[start : start + BLOCK_ELEMENTS]
            np.copyto(product_B, delta_B)  # exact; a product that converts as it goes takes longer
            np.multiply(product_B, coefficient, out=product_B)
            np.add(sum_B, product_B, out=sum_B)
