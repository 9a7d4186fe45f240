"""What is done with every number of every delta: defined here in numpy, and done by common/compiled where that is installed.

    add_product       sum += coefficient × delta, both rounded once, in float64
    quotients         float32(sum ÷ divisor)
    sum_of_squares    of one leaf by the fixed tree (scalar.py), squares and sums in float64

Both ways give the same bits; tests compare them, and the self-test goes through the one that is used.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common import compiled
from common.codecs.base import Float32s

BLOCK_ELEMENTS = 65_536
"""Arithmetic goes in blocks that stay in the processor's cache."""
LEAF_ELEMENTS = 65_536

Float64s = NDArray[np.float64]


class Loops(Protocol):
    """One lane's: not for two threads at once. Arrays are contiguous."""

    def add_product(self, sum_M: Float64s, coefficient: float, delta_M: Float32s) -> None: ...

    def quotients(self, sum_N: Float64s, divisor: float) -> Float32s:
        """Shape (N,), in the memory of the sum."""
        ...

    def sum_of_squares(self, leaf_L: Float32s) -> float:
        """Of a whole leaf, shape (LEAF_ELEMENTS,)."""
        ...


class NumpyLoops:
    """The definition. In blocks, so that what lies between two steps stays in the processor's cache."""

    def __init__(self) -> None:
        self._block = np.empty(max(BLOCK_ELEMENTS, LEAF_ELEMENTS), dtype=np.float64)

    def add_product(self, sum_M: Float64s, coefficient: float, delta_M: Float32s) -> None:
        for start in range(0, len(delta_M), BLOCK_ELEMENTS):
            delta_B = delta_M[start : start + BLOCK_ELEMENTS]
            product_B = self._block[: len(delta_B)]
            sum_B = sum_M[start : start + BLOCK_ELEMENTS]
            np.copyto(product_B, delta_B)  # exact; a product that converts as it goes takes longer
            np.multiply(product_B, coefficient, out=product_B)
            np.add(sum_B, product_B, out=sum_B)

    def quotients(self, sum_N: Float64s, divisor: float) -> Float32s:
        # Over the sums themselves: what a block of means covers was used by then, and chunks of 4-bit numbers are large.
        mean_N = sum_N.view(np.float32)[: len(sum_N)]
        for start in range(0, len(sum_N), BLOCK_ELEMENTS):
            quotient_B = self._block[: len(sum_N[start : start + BLOCK_ELEMENTS])]
            np.divide(sum_N[start : start + BLOCK_ELEMENTS], divisor, out=quotient_B)
            np.copyto(mean_N[start : start + BLOCK_ELEMENTS], quotient_B, casting="same_kind")
        return mean_N

    def sum_of_squares(self, leaf_L: Float32s) -> float:
        squares_L = self._block[:LEAF_ELEMENTS]
        np.copyto(squares_L, leaf_L)
        np.multiply(squares_L, squares_L, out=squares_L)
        return fold_leaf(squares_L, LEAF_ELEMENTS)


class CompiledLoops:
    """The same by common/compiled."""

    def __init__(self, library: compiled.CompiledLoops) -> None:
        self._library = library

    def add_product(self, sum_M: Float64s, coefficient: float, delta_M: Float32s) -> None:
        self._library.add_product(sum_M, coefficient, delta_M, len(delta_M))

    def quotients(self, sum_N: Float64s, divisor: float) -> Float32s:
        mean_N = sum_N.view(np.float32)[: len(sum_N)]
        self._library.quotients(sum_N, mean_N, divisor, len(sum_N))
        return mean_N

    def sum_of_squares(self, leaf_L: Float32s) -> float:
        return self._library.sum_of_squares(leaf_L)


def fold_leaf(values: Float64s, filled: int) -> float:
    """The sum of the first `filled` values of a leaf, shape (LEAF_ELEMENTS,), which is written over."""
    values[filled:] = 0.0
    half = LEAF_ELEMENTS // 2
    while half:
        lower = values[:half]
        np.add(lower, values[half : 2 * half], out=lower)
        half //= 2
    return float(values[0])


_LIBRARY = compiled.find()


def make_loops() -> Loops:
    """For one lane."""
    return NumpyLoops() if _LIBRARY is None else CompiledLoops(_LIBRARY)


def are_compiled() -> bool:
    """Whether `make_loops` gives compiled ones."""
    return _LIBRARY is not None
