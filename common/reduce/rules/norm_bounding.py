"""The rule `norm-bounding`: norm clipping whose bound is `factor` times the median of the round's own norms.

The bound needs no tuning as training slows down, and holds with a majority of right deltas: with n ≥ 2f + 1 the lower median
of the norms is at most a right delta's norm. Breakdown point of the bound 1/2; of the mean within it, as for norm-clipping.

Source: Sun et al., arXiv:1911.07963, section 4, with a bound by the round's norms instead of a constant M.
"""

from __future__ import annotations

from common.plan.rules import NormBounding
from common.reduce.rule import Average, Sealed
from common.reduce.rules.norm_clipping import clipped


def norm_bounding(section: NormBounding, sealed: Sealed) -> Average:
    """As `norm_clipping`; the bound is factor × the ((n + 1) ÷ 2, rounded down)-th smallest norm."""
    ascending = sorted(sealed.norms)
    return clipped(sealed, float(section.factor) * ascending[(len(ascending) - 1) // 2])
