"""Sums in float64 by a fixed tree, so that their bits do not depend on processor, block size or threads.

    leaf        65,536 consecutive values, the last leaf filled up with zeros; sixteen times its upper half is added to its
                lower half, element by element, until one value is left
    tree        neighbouring leaf sums are added in pairs, level by level; a missing partner is zero

Source: pairwise summation, Higham 1993, with the tree's shape made part of the protocol (docs/protocol.md#sums).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAF_ELEMENTS = 65_536

Float64s = NDArray[np.float64]


def tree_sum(values_N: Float64s) -> float:
    """The sum of all values, shape (N,), by the fixed tree; 0.0 of none."""
    tree = TreeSum()
    tree.add(values_N)
    return tree.total()


class TreeSum:
    """The same sum for values that come in pieces of any length, in one leaf of memory."""

    def __init__(self) -> None:
        self._leaf = np.zeros(LEAF_ELEMENTS, dtype=np.float64)
        self._filled = 0
        self._leaves = 0
        self._subtrees: list[float] = []
        """Sums of complete subtrees, largest first: the ones of a binary counter, as in a Merkle tree."""

    def add(self, values_N: Float64s) -> None:
        """Append float64 values, shape (N,)."""
        done = 0
        while done < len(values_N):
            room = self._room(len(values_N) - done)
            np.copyto(room, values_N[done : done + len(room)])
            done += len(room)
            self._advance(len(room))

    def add_squares(self, values_N: NDArray[np.float32]) -> None:
        """Append the squares of float32 values, shape (N,); in float64 they are exact and never overflow."""
        done = 0
        while done < len(values_N):
            room = self._room(len(values_N) - done)
            np.copyto(room, values_N[done : done + len(room)])
            np.multiply(room, room, out=room)
            done += len(room)
            self._advance(len(room))

    def total(self) -> float:
        """The sum of everything so far; more may follow."""
        sums = list(self._subtrees)
        if self._filled:
            leaf = self._leaf.copy()
            leaf[self._filled :] = 0.0
            sums.append(self._fold(leaf))
        if not sums:
            return 0.0
        result = sums.pop()
        while sums:
            result = sums.pop() + result
        return result

    def _room(self, wanted: int) -> Float64s:
        return self._leaf[self._filled : self._filled + wanted]

    def _advance(self, count: int) -> None:
        self._filled += count
        if self._filled < LEAF_ELEMENTS:
            return
        carry = self._fold(self._leaf)
        completed = self._leaves
        while completed & 1:
            carry = self._subtrees.pop() + carry
            completed >>= 1
        self._subtrees.append(carry)
        self._leaves += 1
        self._filled = 0

    def _fold(self, leaf: Float64s) -> float:
        half = LEAF_ELEMENTS // 2
        while half:
            lower = leaf[:half]
            np.add(lower, leaf[half : 2 * half], out=lower)
            half //= 2
        return float(leaf[0])
