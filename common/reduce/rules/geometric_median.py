"""The rule `geometric-median`: RFA, by a fixed number of steps of the smoothed Weiszfeld algorithm.

The point z with the least Σ n_i ‖z − d_i‖. Breakdown point 1/2 by tokens: as long as wrong deltas have less than half of the
round's tokens, z stays near the right ones. Weighted by num_tokens, as the paper is; so institutions' own word on their
num_tokens, which the plan bounds, counts here.

z is always a weighted mean of the deltas, so that its distances follow from theirs, and a step takes no pass over the deltas:
‖d_i − Σ w_j d_j‖² = Σ_j w_j D_ij − ½ Σ_jk w_j w_k D_jk, where Σ w = 1.

Each step shrinks what is left of a far delta's pull by about the wrong deltas' tokens over the right ones', so that steps are
what a round near its breakdown point needs. Distances are good to 2^-26 of √(largest × usual distance); max_delta_l2 bounds the
largest.

Source: Pillutla, Kakade, Harchaoui, arXiv:1912.13445, algorithm 2.
"""

from __future__ import annotations

import math

import numpy as np

from common.plan.rules import GeometricMedian
from common.reduce.loops import Float64s
from common.reduce.rule import Average, Sealed
from common.reduce.rules.krum import distances


def geometric_median(section: GeometricMedian, sealed: Sealed) -> Average:
    """Coefficients n_i ÷ max(smoothing, ‖z − d_i‖) over their sum, z from the step before; the first z is the weighted mean.

    All in float64; sums over institutions are taken one after the other, from +0.0 on.
    """
    squared_II = distances(sealed)
    weights = tuple(float(num_tokens) for num_tokens in sealed.num_tokens)
    smoothing = float(section.smoothing)
    coefficients = weights
    for _ in range(section.iterations):
        away = _distances_to_mean(squared_II, coefficients)
        coefficients = tuple(
            weight / (distance if distance > smoothing else smoothing)
            for weight, distance in zip(weights, away, strict=True)
        )
    return Average(coefficients, _total(coefficients))


def _distances_to_mean(squared_II: Float64s, coefficients: tuple[float, ...]) -> list[float]:
    """How far each delta is from the mean by these coefficients; 0 where rounding makes a square negative."""
    total = _total(coefficients)
    shares = [coefficient / total for coefficient in coefficients]
    to_others_I = np.zeros(len(shares), dtype=np.float64)
    for share, squared_I in zip(shares, squared_II, strict=True):
        np.add(to_others_I, np.multiply(squared_I, share), out=to_others_I)
    each = to_others_I.tolist()
    spread = 0.0
    for share, to_others in zip(shares, each, strict=True):
        spread += share * to_others
    squares = (to_others - 0.5 * spread for to_others in each)
    return [math.sqrt(square) if square > 0.0 else 0.0 for square in squares]


def _total(values: tuple[float, ...]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total
