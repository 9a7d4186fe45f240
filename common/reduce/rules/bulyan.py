"""The rule `bulyan`: Krum picks n − 2f deltas one by one; of each number, the mean of the n − 4f closest to the median.

Krum alone lets one number be far off where a delta has millions of them; here each number lies between two right deltas'.
Breakdown point: f of n ≥ 4f + 3. Unweighted.

Source: El Mhamdi, Guerraoui, Rouault, arXiv:1802.07927, section 4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.codecs.base import Float32s
from common.plan.rules import Bulyan
from common.reduce.loops import Float64s
from common.reduce.rule import Sealed, SideBySide
from common.reduce.rules.krum import Neighbours, distances
from common.reduce.sorting import Sorter


def bulyan(section: Bulyan, sealed: Sealed) -> SideBySide:
    """The deltas that Krum picks, side by side."""
    deltas, byzantine = len(sealed.num_tokens), section.byzantine
    picked = pick(distances(sealed), deltas - 2 * byzantine, byzantine)
    return SideBySide(picked, lambda max_elements: ClosestToMedian(len(picked), 2 * byzantine, max_elements))


def pick(squared_II: Float64s, wanted: int, byzantine: int) -> tuple[int, ...]:
    """So many positions, ascending: each time the smallest score of Krum among those that are left, of equals the first.

    A score takes m − f − 2 neighbours of m that are left, and never fewer than one.
    """
    neighbours = Neighbours(squared_II)
    left = list(range(len(squared_II)))
    picked = []
    for _ in range(wanted):
        found = neighbours.scores(left, max(1, len(left) - byzantine - 2))
        best = sorted(left, key=found.__getitem__)[0]
        left.remove(best)
        picked.append(best)
    return tuple(sorted(picked))


class ClosestToMedian:
    """Of each number, the mean of those closest to the median: what is left when the farther end was dropped, again and again.

    As float64 m of the ascending x: the median, or half the sum of the two in the middle. Those closest to m adjoin in x.
    From the ones from k on, the next higher ones are closer while m − x[k] > x[k + kept] − m; of equals the lower stays.
    """

    def __init__(self, rows: int, dropped: int, max_elements: int) -> None:
        self._rows, self._dropped, self._kept = rows, dropped, rows - dropped
        self._sorter = Sorter(rows, 0, rows)
        block = self._sorter.block_elements
        self._mean = np.empty(max_elements, dtype=np.float32)
        self._median: Float64s = np.empty(block, dtype=np.float64)
        self._below: Float64s = np.empty(block, dtype=np.float64)
        self._above: Float64s = np.empty(block, dtype=np.float64)

    def combine(self, numbers_IN: Float32s) -> Float32s:
        mean_N = self._mean[: numbers_IN.shape[1]]
        for start in range(0, len(mean_N), self._sorter.block_elements):
            mean_B = mean_N[start : start + self._sorter.block_elements]
            ascending = self._sorter.ascending(numbers_IN[:, start : start + len(mean_B)])
            sum_B = self._sum(ascending, self._moved(ascending))
            np.divide(sum_B, float(self._kept), out=sum_B)
            np.copyto(mean_B, sum_B, casting="same_kind")
        return mean_N

    def _moved(self, ascending: list[Float32s]) -> list[NDArray[np.bool_]]:
        """Of each k, for which numbers the kept ones begin behind k."""
        median_B, below_B, above_B = (each[: len(ascending[0])] for each in (self._median, self._below, self._above))
        np.copyto(median_B, ascending[(self._rows - 1) // 2])
        np.copyto(above_B, ascending[self._rows // 2])
        np.add(median_B, above_B, out=median_B)
        np.divide(median_B, 2.0, out=median_B)
        moved = []
        for k in range(self._dropped):
            np.copyto(below_B, ascending[k])
            np.copyto(above_B, ascending[k + self._kept])
            np.subtract(median_B, below_B, out=below_B)
            np.subtract(above_B, median_B, out=above_B)
            moved.append(below_B > above_B)
        return moved

    def _sum(self, ascending: list[Float32s], moved: list[NDArray[np.bool_]]) -> Float64s:
        """The sum of the kept ones, in ascending order, from +0.0 on; one that is not kept adds a zero."""
        sum_B, term_B = (each[: len(ascending[0])] for each in (self._median, self._below))
        sum_B.fill(0.0)
        for rank, row_B in enumerate(ascending):
            np.copyto(term_B, row_B)
            if rank < self._dropped:
                np.multiply(term_B, ~moved[rank], out=term_B)
            if rank >= self._kept:
                np.multiply(term_B, moved[rank - self._kept], out=term_B)
            np.add(sum_B, term_B, out=sum_B)
        return sum_B
