"""The rule `median`: of each number, the median over the deltas; of an even number, the mean of the two in the middle.

Breakdown point 1/2: with n ≥ 2f + 1 each number lies between two right deltas' numbers. Unweighted.

Source: Yin et al., arXiv:1803.01498, option I of algorithm 1.
"""

from __future__ import annotations

from common.plan.rules import Median
from common.reduce.rule import Sealed, SideBySide
from common.reduce.sorting import MeanOfSorted


def median(section: Median, sealed: Sealed) -> SideBySide:
    """All deltas side by side."""
    deltas = len(sealed.num_tokens)
    first, end = (deltas - 1) // 2, deltas // 2 + 1
    return SideBySide(tuple(range(deltas)), lambda max_elements: MeanOfSorted(deltas, first, end, max_elements))
