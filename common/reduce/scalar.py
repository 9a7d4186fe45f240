"""Sums in float64 by a fixed tree, so that their bits do not depend on processor, block size or threads.

    leaf        65,536 consecutive values, the last leaf filled up with zeros; sixteen times its upper half is added to its
                lower half, element by element, until one value is left
    tree        neighbouring leaf sums are added in pairs, level by level; a missing partner is zero

Source: pairwise summation, Higham 1993, with the tree's shape made part of the protocol (docs/protocol.md#sums).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import numpy as np

from common.codecs.base import Float32s
from common.reduce.loops import LEAF_ELEMENTS, Float64s, fold_leaf, make_loops

Values = TypeVar("Values", Float32s, Float64s)


def tree_sum(values_N: Float64s) -> float:
    """The sum of all values, shape (N,), by the fixed tree; 0.0 of none."""
    tree = TreeSum(LeafOfValues())
    tree.add(values_N)
    return tree.total()


class Leaf(ABC, Generic[Values]):
    """One leaf, filled by pieces of any length."""

    def __init__(self, values_L: Values) -> None:
        self._values: Values = values_L
        self.filled = 0

    def take(self, values_N: Values) -> int:
        """Append as many values as there is room for; how many."""
        room = self._values[self.filled : self.filled + len(values_N)]
        np.copyto(room, values_N[: len(room)])
        self.filled += len(room)
        return len(room)

    def clear(self) -> None:
        """Forget what is in it."""
        self.filled = 0

    @property
    def full(self) -> bool:
        return self.filled == LEAF_ELEMENTS

    def fold(self) -> float:
        """The sum of what is in it, filled up with zeros; the leaf is empty afterwards."""
        total = self.so_far()
        self.filled = 0
        return total

    @abstractmethod
    def so_far(self) -> float:
        """As `fold`, and more may follow."""


class LeafOfValues(Leaf[Float64s]):
    """Of float64 values."""

    def __init__(self) -> None:
        super().__init__(np.zeros(LEAF_ELEMENTS, dtype=np.float64))

    def so_far(self) -> float:
        return fold_leaf(self._values.copy(), self.filled)


class LeafOfSquares(Leaf[Float32s]):
    """Of the squares of float32 values; in float64 they are exact and never overflow."""

    def __init__(self) -> None:
        super().__init__(np.zeros(LEAF_ELEMENTS, dtype=np.float32))
        self._loops = make_loops()

    def so_far(self) -> float:
        self._values[self.filled :] = 0.0
        return self._loops.sum_of_squares(self._values)


class LeafTree:
    """Adds leaf sums up as they come, from first to last."""

    def __init__(self) -> None:
        self._leaves = 0
        self._subtrees: list[float] = []
        """Sums of complete subtrees, largest first: the ones of a binary counter, as in a Merkle tree."""

    def append(self, leaf_sum: float) -> None:
        """The next leaf's sum."""
        carry = leaf_sum
        completed = self._leaves
        while completed & 1:
            carry = self._subtrees.pop() + carry
            completed >>= 1
        self._subtrees.append(carry)
        self._leaves += 1

    def total(self, last: float | None = None) -> float:
        """The sum of all leaves so far, and of one more that is not full; more may follow."""
        sums = [*self._subtrees] if last is None else [*self._subtrees, last]
        result = sums.pop() if sums else 0.0
        while sums:
            result = sums.pop() + result
        return result


class TreeSum(Generic[Values]):
    """The sum by the fixed tree for values that come in pieces of any length, in one leaf of memory."""

    def __init__(self, leaf: Leaf[Values]) -> None:
        self._leaf: Leaf[Values] = leaf
        self._tree = LeafTree()

    def add(self, values_N: Values) -> None:
        """Append values, shape (N,)."""
        done = 0
        while done < len(values_N):
            done += self._leaf.take(values_N[done:])
            if self._leaf.full:
                self._tree.append(self._leaf.fold())

    def total(self) -> float:
        """The sum of everything so far; more may follow."""
        return self._tree.total(self._leaf.so_far() if self._leaf.filled else None)
