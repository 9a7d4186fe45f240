"""docs/protocol.md#arithmetic once more, with Python's floats alone: no numpy, no array, one operation a line.

A Python float is a binary64, and its + − × ÷ round once. A binary32 is what `struct` packs, rounded to nearest, ties to even.
An operation in binary32 is taken in binary64 and then rounded: with 53 ≥ 2·24 + 2 bits that gives what one rounding gives.
Source: Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30(3), 1995.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence

LEAF = 65_536


def float32(value: float) -> float:
    """The nearest binary32.

    Raises:
        OverflowError: there is none that is finite.
    """
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def from_bits(bits: int) -> float:
    """The binary32 with these bits."""
    (value,) = struct.unpack("<f", struct.pack("<I", bits))
    return float(value)


def new_values(
    base: Sequence[float], contributions: Mapping[str, tuple[int, Sequence[float]]], learning_rate: str
) -> list[float]:
    """New trainable numbers by `weighted-mean` and `sgd`.

    Args:
        base: binary32 numbers.
        contributions: num_tokens and the delta's binary32 numbers, by institution.
        learning_rate: decimal text.

    Raises:
        OverflowError: a number of the new model, or of the mean, would not be finite.
    """
    ordered = [contributions[name] for name in sorted(contributions, key=str.encode)]
    total = 0
    for num_tokens, _ in ordered:
        total += num_tokens
    lr = float32(float(learning_rate))
    return [_new_value(old, at, ordered, float(total), lr) for at, old in enumerate(base)]


def _new_value(old: float, at: int, ordered: Sequence[tuple[int, Sequence[float]]], total: float, lr: float) -> float:
    acc = 0.0
    for num_tokens, delta in ordered:
        product = float(num_tokens) * delta[at]
        acc = acc + product
    mean = acc / total
    g = float32(mean)
    step = float32(lr * g)
    return float32(old + step)


def l2(delta: Sequence[float]) -> float:
    """The norm of a delta's binary32 numbers."""
    return math.sqrt(tree_sum([value * value for value in delta]))


def tree_sum(values: Sequence[float]) -> float:
    """docs/protocol.md#sums by recursion."""
    leaves = [_leaf_sum(values[at : at + LEAF]) for at in range(0, len(values), LEAF)]
    return _fold(leaves) if leaves else 0.0


def _leaf_sum(values: Sequence[float]) -> float:
    leaf = [*values, *[0.0] * (LEAF - len(values))]
    while len(leaf) > 1:
        half = len(leaf) // 2
        leaf = [lower + upper for lower, upper in zip(leaf[:half], leaf[half:], strict=True)]
    return leaf[0]


def _fold(sums: Sequence[float]) -> float:
    if len(sums) == 1:
        return sums[0]
    k = 1
    while 2 * k < len(sums):
        k *= 2
    return _fold(sums[:k]) + _fold(sums[k:])
