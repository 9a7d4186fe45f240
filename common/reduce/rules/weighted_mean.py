"""The rule `weighted-mean`: FedAvg's mean of deltas, weighted by num_tokens.

Breakdown point 0: one delta, scaled up far enough, moves the mean anywhere.

Source: McMahan et al., arXiv:1602.05629, algorithm 1.
"""

from __future__ import annotations

from common.plan.rules import WeightedMean
from common.reduce.rule import Average, Sealed


def weighted_mean(section: WeightedMean, sealed: Sealed) -> Average:
    """Coefficients n_i over Σ n_i, the sum taken over integers."""
    total = 0
    for num_tokens in sealed.num_tokens:
        total += num_tokens
    return Average(tuple(float(num_tokens) for num_tokens in sealed.num_tokens), float(total))
