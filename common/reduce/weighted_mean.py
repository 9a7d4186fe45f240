"""The rule `weighted-mean`: FedAvg's mean of deltas, weighted by num_tokens.

Source: McMahan et al., arXiv:1602.05629, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from common.codecs.base import Float32s
from common.reduce.rule import BLOCK_ELEMENTS, Weighted
from common.reduce.scalar import Float64s


class WeightedMeanRule:
    """mean_N = float32(Σ n_i · d_i / Σ n_i).

    The sum starts at +0.0 and is taken in float64, institution after institution. Each product is exact: n < 2^29 has 29
    bits, a float32 24, a float64 53.
    """

    def __init__(self, max_elements: int) -> None:
        self._sum = np.empty(max_elements, dtype=np.float64)
        self._product = np.empty(min(max_elements, BLOCK_ELEMENTS), dtype=np.float64)

    def combine(self, deltas: Iterable[Weighted], out_N: Float32s) -> None:
        sum_N = self._sum[: len(out_N)]
        sum_N.fill(0.0)
        total = 0
        for num_tokens, delta_N in deltas:
            total += num_tokens
            self._add(sum_N, float(num_tokens), delta_N)
        np.divide(sum_N, float(total), out=sum_N)
        np.copyto(out_N, sum_N, casting="same_kind")

    def _add(self, sum_N: Float64s, weight: float, delta_N: Float32s) -> None:
        # In blocks, so that the products stay in the processor's cache.
        for start in range(0, len(delta_N), BLOCK_ELEMENTS):
            delta_B = delta_N[start : start + BLOCK_ELEMENTS]
            product_B = self._product[: len(delta_B)]
            sum_B = sum_N[start : start + BLOCK_ELEMENTS]
            np.copyto(product_B, delta_B)  # exact; a product that converts as it goes takes longer
            np.multiply(product_B, weight, out=product_B)
            np.add(sum_B, product_B, out=sum_B)
