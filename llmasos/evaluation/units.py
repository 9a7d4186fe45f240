"""Sums by unit: what an evaluation's numbers and their intervals are made of, whatever the task.

A unit is what is drawn anew by a bootstrap (llmasos.evaluation.bootstrap): a document, a window of text, a row of records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from llmasos.evaluation.bootstrap import Interval, interval_of_ratio
from llmasos.evaluation.metrics import Likelihood, exp_or_inf, likelihood

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Units:
    """Each float64, shape (U,), exact where it counts."""

    nats: Floats
    targets: Floats
    hits: Floats
    """Of the judged, those that the model held likeliest."""
    judged: Floats
    """Things of which one had to be the likeliest; 0 where a task has none."""
    text_bytes: Floats
    words: Floats
    ngram_nats: Floats

    @classmethod
    def of(cls, nats: Floats, targets: Floats, hits: Floats, judged: Floats) -> Units:
        """Of a task that does not predict a text."""
        nothing = np.zeros(len(nats))
        return cls(nats, targets, hits, judged, nothing, nothing, nothing)

    @classmethod
    def joined(cls, parts: Sequence[Units]) -> Units:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def summed(self, unit: npt.NDArray[np.int64]) -> Units:
        """Those of the same number in `unit`, shape (U,), together."""
        return Units(*(_by(unit, getattr(self, field.name)) for field in fields(self)))

    @property
    def likelihood(self) -> Likelihood:
        return self._likelihood(self.nats)

    @property
    def ngram_likelihood(self) -> Likelihood:
        return self._likelihood(self.ngram_nats)

    @property
    def accuracy(self) -> float | None:
        judged = float(self.judged.sum())
        return float(self.hits.sum()) / judged if judged else None

    def intervals(self, *, seed: int) -> dict[str, Interval]:
        """Of loss, of bits a byte and of accuracy, where there are such; nothing of a single unit."""
        loss = interval_of_ratio(self.nats, self.targets, seed=seed)
        found = {"loss": loss}
        if self.text_bytes.any():
            found["bits_per_byte"] = interval_of_ratio(self.nats / math.log(2), self.text_bytes, seed=seed)
        if self.judged.any():
            found["accuracy"] = interval_of_ratio(self.hits, self.judged, seed=seed)
        return {name: one for name, one in found.items() if one is not None}

    def _likelihood(self, nats: Floats) -> Likelihood:
        return likelihood(
            nats=math.fsum(nats),
            tokens=int(self.targets.sum()),
            words=int(self.words.sum()),
            text_bytes=int(self.text_bytes.sum()),
        )


def perplexity_interval(loss: Interval) -> Interval:
    """Of e to the loss."""
    return Interval(exp_or_inf(loss.low), exp_or_inf(loss.high), loss.confidence, loss.samples)


def column(values: Iterable[float]) -> Floats:
    """float64, shape (U,)."""
    return np.fromiter(values, np.float64)


def _by(unit: npt.NDArray[np.int64], values: Floats) -> Floats:
    return np.asarray(np.bincount(unit, weights=values), np.float64)
