"""What rules offer to `reduce_round`. They do no IO and see one window of all tensors at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from common.codecs.base import Float32s

BLOCK_ELEMENTS = 65_536
"""Arithmetic goes in blocks that stay in the processor's cache."""

Weighted = tuple[int, Iterable[Float32s]]
"""num_tokens, and one institution's numbers in the window, in pieces from first to last, each valid until the next."""


class Rule(Protocol):
    """Many deltas into one, element by element."""

    def combine(self, deltas: Iterable[Weighted], elements: int) -> Float32s:
        """What all deltas of one window of so many numbers come to; they come once each, in ascending order of institutions.

        Returns:
            float32, shape (elements,), writable; valid until the next call.
        """
        ...
