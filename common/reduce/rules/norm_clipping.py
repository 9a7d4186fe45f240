"""The rule `norm-clipping`: the weighted mean of deltas that are scaled down to a norm of at most `max_l2`.

No breakdown point: a share of the tokens that is wrong moves the mean by at most that share × max_l2, towards wherever it
likes, round after round. Against scaling alone that is what a mean needs.

Source: Sun et al., arXiv:1911.07963, section 4 (norm thresholding of updates).
"""

from __future__ import annotations

from common.plan.rules import NormClipping
from common.reduce.rule import Average, Sealed


def norm_clipping(section: NormClipping, sealed: Sealed) -> Average:
    """Coefficients n_i × bound ÷ L2_i of longer deltas, n_i of others, over Σ n_i."""
    return clipped(sealed, float(section.max_l2))


def clipped(sealed: Sealed, max_l2: float) -> Average:
    """The mean, weighted by num_tokens, of deltas scaled down to that norm; same unit as the weights."""
    coefficients = []
    total = 0
    for num_tokens, norm in zip(sealed.num_tokens, sealed.norms, strict=True):
        total += num_tokens
        coefficients.append(float(num_tokens) * (max_l2 / norm) if norm > max_l2 else float(num_tokens))
    return Average(tuple(coefficients), float(total))
