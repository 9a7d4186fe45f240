"""How far a number would move on another sample of the same kind of text: percentile bootstrap, seeded.

    interval_of_ratio(nats_of_documents, bytes_of_documents)     # of the sum of the ones over the sum of the others
    interval_of_mean(scores_of_examples)

What is drawn anew are documents or examples, never single tokens: tokens of one document hang together, and would promise more
than was measured. Source: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979); for
corpus scores P. Koehn, "Statistical significance tests for machine translation evaluation", EMNLP 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import UsageError

SAMPLES = 1000
CONFIDENCE = 0.95

Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Between `low` and `high` lies the middle share `confidence` of what the samples gave."""

    low: float
    high: float
    confidence: float = CONFIDENCE
    samples: int = SAMPLES

    def __str__(self) -> str:
        return f"{self.low:,.4g} to {self.high:,.4g}"


def interval_of_ratio(
    numerators: Values, denominators: Values, *, seed: int = 0, samples: int = SAMPLES, confidence: float = CONFIDENCE
) -> Interval | None:
    """The interval of Σ numerators / Σ denominators, units drawn with replacement; None of fewer than two units.

    Args:
        numerators: one a unit, such as a document's nats.
        denominators: one a unit, ≥ 0, such as its bytes; a sample in which all are 0 is drawn again.
        seed: the same gives the same interval.

    Raises:
        UsageError: not as many of the ones as of the others; no denominator above 0; a share that is none.
    """
    over, under = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if len(over) != len(under) or not 0 < confidence < 1 or samples < 1:
        raise UsageError(
            f"A bootstrap got {len(over)} numerators, {len(under)} denominators, {samples} samples, confidence {confidence}, "
            "expected as many of the ones as of the others, 1 sample or more, and a confidence between 0 and 1."
        )
    if len(over) < 2:
        return None
    if not under.sum() > 0:
        raise UsageError("A bootstrap of a ratio got denominators that are all 0, expected one above it.")
    draws = np.random.Generator(np.random.Philox(seed))
    found: list[float] = []
    while len(found) < samples:
        chosen = draws.integers(len(over), size=len(over))
        total = float(under[chosen].sum())
        if total > 0:
            found.append(float(over[chosen].sum()) / total)
    outside = (1 - confidence) / 2
    low, high = np.quantile(found, [outside, 1 - outside])
    return Interval(float(low), float(high), confidence, samples)


def interval_of_mean(
    values: Values, *, seed: int = 0, samples: int = SAMPLES, confidence: float = CONFIDENCE
) -> Interval | None:
    """The interval of the mean of `values`, one an example; None of fewer than two."""
    return interval_of_ratio(values, np.ones(len(values)), seed=seed, samples=samples, confidence=confidence)
