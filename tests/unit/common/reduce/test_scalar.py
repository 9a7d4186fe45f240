"""Sums by the fixed tree: the definition, whatever the pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.scalar import LeafOfSquares, LeafOfValues, TreeSum, tree_sum


def defined(values: np.ndarray) -> float:
    """docs/protocol.md#sums, by the book: recursion over leaf sums, split at the largest power of two."""
    sums = []
    for start in range(0, len(values), LEAF_ELEMENTS):
        leaf = list(values[start : start + LEAF_ELEMENTS]) + [0.0] * max(0, start + LEAF_ELEMENTS - len(values))
        while len(leaf) > 1:
            half = len(leaf) // 2
            leaf = [low + high for low, high in zip(leaf[:half], leaf[half:], strict=True)]
        sums.append(leaf[0])

    def fold(parts: list[float]) -> float:
        if len(parts) == 1:
            return parts[0]
        split = 1
        while 2 * split < len(parts):
            split *= 2
        return fold(parts[:split]) + fold(parts[split:])

    return float(fold(sums)) if sums else 0.0


def wild(elements: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal(elements) * 10.0 ** generator.integers(-12, 12, elements)


@pytest.mark.parametrize("elements", [0, 1, 2, 3, 65_535, 65_536, 65_537, 3 * 65_536 + 5, 7 * 65_536])
def test_a_sum_is_the_documented_tree(elements: int) -> None:
    values = wild(elements)
    assert tree_sum(values).hex() == defined(values).hex()


@settings(deadline=None)
@given(st.lists(st.integers(0, 90_000), max_size=6), st.integers(0, 2**32 - 1))
def test_a_sum_does_not_depend_on_the_pieces(lengths: list[int], seed: int) -> None:
    values = wild(sum(lengths), seed)
    tree = TreeSum(LeafOfValues())
    start = 0
    for length in lengths:
        tree.add(values[start : start + length])
        start += length
        tree.total()
    assert tree.total().hex() == tree_sum(values).hex()


def test_squares_are_taken_in_float64() -> None:
    values = np.array([3e38, -3e38, 1e-45, 0.0, -2.5], dtype=np.float32)
    tree = TreeSum(LeafOfSquares())
    tree.add(values)
    assert tree.total() == tree_sum(values.astype(np.float64) ** 2)
    assert math.isfinite(tree.total())


def test_a_sum_is_more_exact_than_adding_in_turn() -> None:
    values = np.full(1_000_000, 0.1)
    assert abs(tree_sum(values) - 100_000) < abs(float(np.cumsum(values)[-1]) - 100_000)
