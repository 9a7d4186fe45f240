"""The rule `trimmed-mean`: of each number, the mean without the f lowest and the f highest.

Breakdown point f of n ≥ 2f + 1: what is left of each number lies between two right deltas' numbers. Unweighted.

Source: Yin et al., arXiv:1803.01498, option II of algorithm 1, with β = f ÷ n.
"""

from __future__ import annotations

from common.plan.rules import TrimmedMean
from common.reduce.rule import Sealed, SideBySide
from common.reduce.sorting import MeanOfSorted


def trimmed_mean(section: TrimmedMean, sealed: Sealed) -> SideBySide:
    """All deltas side by side."""
    deltas, trimmed = len(sealed.num_tokens), section.byzantine
    return SideBySide(
        tuple(range(deltas)), lambda max_elements: MeanOfSorted(deltas, trimmed, deltas - trimmed, max_elements)
    )
