"""The rules `krum` and `multi-krum`: the delta, or the mean of the deltas, with the closest neighbours.

A delta's score is the sum of its squared distances to the n − f − 2 others that are closest. With n ≥ 2f + 3 the delta of the
smallest score is surrounded by right ones, whatever the f wrong ones are. Breakdown point: f of n ≥ 2f + 3. Unweighted.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017, section 4;
the mean of n − f − 2 as in El-Mhamdi et al., arXiv:2010.04888 (Multi-Krum).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.plan.rules import Krum, MultiKrum
from common.reduce.loops import Float64s
from common.reduce.rule import Average, Sealed


def krum(section: Krum, sealed: Sealed) -> Average:
    """The one delta of the smallest score."""
    return mean_of(_by_score(sealed, section.byzantine)[:1], len(sealed.num_tokens))


def multi_krum(section: MultiKrum, sealed: Sealed) -> Average:
    """The mean of the `keep` deltas of the smallest scores."""
    deltas = len(sealed.num_tokens)
    keep = section.keep if section.keep is not None else deltas - section.byzantine - 2
    return mean_of(_by_score(sealed, section.byzantine)[:keep], deltas)


def mean_of(chosen: Sequence[int], deltas: int) -> Average:
    """The plain mean of some of so many deltas."""
    return Average(tuple(float(position in chosen) for position in range(deltas)), float(len(chosen)))


def _by_score(sealed: Sealed, byzantine: int) -> list[int]:
    """All positions by ascending score, equals in their order."""
    deltas = len(sealed.num_tokens)
    found = Neighbours(distances(sealed)).scores(range(deltas), deltas - byzantine - 2)
    return sorted(range(deltas), key=found.__getitem__)


def distances(sealed: Sealed) -> Float64s:
    """The squared distances of a round whose rule looks at them."""
    if sealed.squared_distances is None:
        raise ValueError("a rule by distances was given none")
    return sealed.squared_distances


class Neighbours:
    """Each delta's others, the closest first."""

    def __init__(self, squared_II: Float64s) -> None:
        deltas = len(squared_II)
        self._order_II = np.argsort(squared_II, axis=1, kind="stable")
        rows_I = np.arange(deltas, dtype=np.uint32).reshape(-1, 1)
        self._ascending_II: Float64s = squared_II.reshape(-1).take(self._order_II + rows_I * deltas)
        self._others_II: NDArray[np.bool_] = self._order_II != rows_I

    def scores(self, among: Sequence[int], closest: int) -> list[float]:
        """Of each delta, the sum of its squared distances to the `closest` nearest of these others, by position.

        Added in ascending order, to +0.0, in float64.
        """
        deltas = len(self._order_II)
        counts = np.zeros(deltas, dtype=np.bool_)
        counts[list(among)] = True
        left_I = np.full(deltas, closest, dtype=np.int32)
        score_I, term_I = np.zeros(deltas, dtype=np.float64), np.empty(deltas, dtype=np.float64)
        for rank in range(deltas):
            takes_I = counts.take(self._order_II[:, rank]) & self._others_II[:, rank] & (left_I > 0)
            np.multiply(self._ascending_II[:, rank], takes_I, out=term_I)
            np.add(score_I, term_I, out=score_I)
            left_I -= takes_I
        return score_I.tolist()
