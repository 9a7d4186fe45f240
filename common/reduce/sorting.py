"""Many institutions' numbers in ascending order, number by number; −0.0 comes before +0.0.

A float32's bits, read as a whole number of which the negative ones are turned over, are ordered as the numbers are. Whole
numbers that are equal are the same, so any way of sorting gives the same bits; here it is a sorting network, whose every
comparison is one minimum and one maximum of two rows.

Source: K. E. Batcher, "Sorting networks and their applications", AFIPS 1968 (odd-even merge sort).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.codecs.base import Float32s
from common.reduce.loops import Float64s

SORTED_NUMBERS = 524_288
"""So many are sorted at once, over all institutions: they stay in the processor's cache."""

LEAST_BLOCK = 2048
"""So many of each institution at least, 8 MB of the largest cohort: with fewer, calling numpy takes longer than comparing."""

Keys = NDArray[np.int32]


def network(rows: int) -> Iterator[tuple[int, int]]:
    """Which rows to compare, one pair after the other, so that afterwards they ascend; the first of a pair gets the smaller."""
    span = 1
    while span < rows:
        step = span
        while step:
            for start in range(step % span, rows - step, 2 * step):
                for at in range(start, start + min(step, rows - step - start)):
                    if at // (2 * span) == (at + step) // (2 * span):
                        yield at, at + step
            step //= 2
        span *= 2


def needed(pairs: Sequence[tuple[int, int]], wanted: Sequence[int]) -> list[tuple[int, int, bool, bool]]:
    """The pairs on which the wanted rows depend, and whether the smaller and the larger of each are looked at again."""
    rows, kept = set(wanted), []
    for lower, upper in reversed(pairs):
        if lower in rows or upper in rows:
            kept.append((lower, upper, lower in rows, upper in rows))
            rows |= {lower, upper}
    return kept[::-1]


class Sorter:
    """Sorts blocks of the same number of rows, in memory of its own."""

    def __init__(self, rows: int, first: int, end: int) -> None:
        """
        Args:
            first, end: which of the ascending rows are asked for.
        """
        self.block_elements = max(LEAST_BLOCK, SORTED_NUMBERS // rows)
        self._pairs = needed(list(network(rows)), range(first, end))
        self._first, self._end = first, end
        self._keys: list[Keys] = [np.empty(self.block_elements, dtype=np.int32) for _ in range(rows + 1)]

    def ascending(self, numbers_IB: Float32s) -> list[Float32s]:
        """The rows from `first` to before `end` of the ascending order, each of shape (B,); valid until the next call.

        Args:
            numbers_IB: float32, finite, shape (rows, B), B at most `block_elements`.
        """
        keys = [key_M[: numbers_IB.shape[1]] for key_M in self._keys]
        for key_B, number_B in zip(keys, numbers_IB, strict=False):  # the last one of the keys is spare
            _turn(number_B.view(np.int32), key_B)
        spare_B = keys.pop()
        for lower, upper, wants_lower, wants_upper in self._pairs:
            if wants_lower:
                np.minimum(keys[lower], keys[upper], out=spare_B, dtype=np.int32)
            if wants_upper:
                np.maximum(keys[lower], keys[upper], out=keys[upper], dtype=np.int32)
            if wants_lower:
                keys[lower], spare_B = spare_B, keys[lower]
        return [self._number(key_B, spare_B) for key_B in keys[self._first : self._end]]

    def _number(self, key_B: Keys, spare_B: Keys) -> Float32s:
        np.copyto(spare_B, key_B)
        _turn(spare_B, key_B)
        return key_B.view(np.float32)


def _turn(bits_B: Keys, key_B: Keys) -> None:
    """From a float32's bits to what is ordered as it is, and back."""
    np.copyto(key_B, bits_B)
    key_B >>= np.int32(31)
    key_B &= np.int32(0x7FFFFFFF)
    key_B ^= bits_B


class MeanOfSorted:
    """Of each number, the mean of some of its ascending order: added in that order, to +0.0, in float64; divided; rounded."""

    def __init__(self, rows: int, first: int, end: int, max_elements: int) -> None:
        """
        Args:
            first, end: those from position `first` to before `end`.
        """
        self._sorter = Sorter(rows, first, end)
        self._count = float(end - first)
        self._mean = np.empty(max_elements, dtype=np.float32)
        self._sum: Float64s = np.empty(self._sorter.block_elements, dtype=np.float64)
        self._term: Float64s = np.empty(self._sorter.block_elements, dtype=np.float64)

    def combine(self, numbers_IN: Float32s) -> Float32s:
        mean_N = self._mean[: numbers_IN.shape[1]]
        for start in range(0, len(mean_N), self._sorter.block_elements):
            mean_B = mean_N[start : start + self._sorter.block_elements]
            sum_B, term_B = self._sum[: len(mean_B)], self._term[: len(mean_B)]
            sum_B.fill(0.0)
            for row_B in self._sorter.ascending(numbers_IN[:, start : start + len(mean_B)]):
                np.copyto(term_B, row_B)
                np.add(sum_B, term_B, out=sum_B)
            np.divide(sum_B, self._count, out=sum_B)
            np.copyto(mean_B, sum_B, casting="same_kind")
        return mean_N
