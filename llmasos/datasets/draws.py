"""What chance decides about a batch, as pure functions of seed and step: a resumed round draws the same again.

The stream of a context is that of Philox-4x64 from counter 0 under the key that is the first 16 bytes, little-endian, of
SHA-256(context ‖ 0x00 ‖ seed ‖ step ‖ row), each 8 bytes, little-endian; a batch's own stream leaves `row` out. NumPy keeps
that stream across versions; what is made of it here uses its raw 64-bit integers alone.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BATCH = b"llmasos/v1/batch"
"""Which windows or rows a batch has."""
ROW = b"llmasos/v1/row"
"""What is drawn within a row: masks, a second sentence."""

_TWO_64 = 2**64


def stream(context: bytes, *numbers: int) -> np.random.Philox:
    """
    Args:
        numbers: seed, step and so on, each at least 0 and below 2^64.
    """
    material = context + bytes(1) + b"".join(number.to_bytes(8, "little") for number in numbers)
    return np.random.Philox(key=int.from_bytes(hashlib.sha256(material).digest()[:16], "little"))


def indices(seed: int, step: int, count: int, below: int) -> list[int]:
    """`count` numbers below `below`, at least 1, drawn with replacement: r mod `below` of the batch's stream."""
    return [int(value) % below for value in stream(BATCH, seed, step).random_raw(count)]


class Dice:
    """Draws within one row, each from the next integers of the row's stream."""

    def __init__(self, seed: int, step: int, row: int) -> None:
        self._numbers = (seed, step, row)

    @cached_property
    def _stream(self) -> np.random.Philox:
        return stream(ROW, *self._numbers)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return int(self._stream.random_raw()) % limit

    def is_below(self, chance: Fraction) -> bool:
        """True with that chance."""
        return int(self._stream.random_raw()) < chance * _TWO_64

    def raw(self, count: int) -> NDArray[np.uint64]:
        return self._stream.random_raw(count)

    def some(self, count: int, of: int) -> NDArray[np.int64]:
        """`count` different numbers below `of`, ascending: those of the smallest draws."""
        return np.sort(np.argsort(self.raw(of), kind="stable")[:count])
