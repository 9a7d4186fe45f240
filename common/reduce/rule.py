"""What rules offer to `reduce_round`. They do no IO.

    first look      norms or distances of whole deltas, if the rule asks for them        looks.py
    decide          Sealed ─▶ Average or SideBySide, a pure function                     rules/*.py
    windows         an average is taken delta after delta, or numbers side by side       average.py, side_by_side.py

Institutions are known by their positions in ascending bytewise order of names, which also decides between equals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from common.codecs.base import Float32s
from common.reduce.loops import Float64s

Pieces = Iterable[Float32s]
"""One institution's numbers in the window, from first to last; each piece is valid until the next."""


Look = Literal["nothing", "norms", "distances"]
"""What a rule must know of whole deltas before it sees the first window."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed round's deltas, as a rule decides over them."""

    num_tokens: tuple[int, ...]
    norms: tuple[float, ...] = ()
    """L2 norms; there if the rule looks at norms."""
    squared_distances: Float64s | None = None
    """Squared L2 distances, float64, shape (I, I), symmetric, zeros in the diagonal; there if the rule looks at distances."""


@dataclass(frozen=True, slots=True)
class Average:
    """g = float32(Σ coefficient · d ÷ divisor), institution after institution; one of coefficient 0 is left out."""

    coefficients: tuple[float, ...]
    divisor: float


class Stacked(Protocol):
    """Combines numbers side by side, one window at a time, with buffers of its own."""

    def combine(self, numbers_IN: Float32s) -> Float32s:
        """What so many institutions' numbers, shape (I, N), come to; they may be written over.

        Returns:
            float32, shape (N,), writable; valid until the next call.
        """
        ...


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Numbers are compared over the chosen institutions."""

    chosen: tuple[int, ...]
    """In ascending order."""
    stacked: Callable[[int], Stacked]
    """From the most elements of a window."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Many deltas into one: a row of the registry."""

    look: Look
    decide: Callable[[Any, Sealed], Average | SideBySide]
    """From the plan's section; pure. How many deltas there are was checked by the section."""
