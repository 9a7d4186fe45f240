"""One side of the split as a row file: how batches and measured rows are taken from it, whatever a row is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from common.plan.model import Plan
from llmasos.datasets.draws import Dice, indices
from llmasos.datasets.rows import RowFile, spread
from llmasos.tasks.base import Batch, together


class RowSide(ABC):
    """Open for reading."""

    __slots__ = ()

    file: RowFile
    plan: Plan

    @property
    @abstractmethod
    def most_targets(self) -> int:
        """Targets that a row can have, at most."""

    @abstractmethod
    def _row(self, index: int, dice: Dice) -> Batch:
        """A batch of one row."""

    @property
    def path(self) -> Path:
        return self.file.path

    def batch(self, *, seed: int, step: int) -> Batch:
        drawn = indices(seed, step, self.plan.local.batch_size, self.file.count)
        return together([self._row(index, Dice(seed, step, row)) for row, index in enumerate(drawn)])

    def measured_rows(self) -> Iterator[Batch]:
        taken = max(1, self.plan.evaluation.max_tokens // self.most_targets)
        return (self._row(index, Dice(0, 0, index)) for index in spread(self.file.count, taken))

    def close(self) -> None:
        self.file.close()
