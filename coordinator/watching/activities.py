"""Changes of activity that the board saw, for a run's log. Bounded: of a thousand changes by one institution a few are kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

from coordinator.ports import Activity

RUNS_KEPT = 32
CHANGES_KEPT = 2000
"""Newest ones of a run."""
CHANGES_EACH = 64
"""Of one institution in one round: it cannot push out what others did."""


@dataclass(frozen=True, slots=True)
class ActivityChange:
    """An institution began something else. `number` counts up over all runs, from 1."""

    number: int
    at: datetime
    round: int
    institution: str
    activity: str
    steps_done: int
    steps_total: int
    available_at: str


class ActivityChanges:
    """A ring for each of the newest RUNS_KEPT runs. Its owner locks."""

    def __init__(self) -> None:
        self._number = 0
        self._rings: dict[str, deque[ActivityChange]] = {}
        self._noted: dict[str, tuple[int, dict[str, int]]] = {}
        """By run: the newest round, and how many changes each institution had in it."""

    def note(self, at: datetime, institution: str, activity: Activity) -> None:
        """One change; beyond CHANGES_EACH in a round it is passed over."""
        ring = self._ring(activity.run)
        round_number, counts = self._noted.get(activity.run, (0, {}))
        if round_number != activity.round:
            counts = {}
        self._noted[activity.run] = (activity.round, counts)
        counts[institution] = counts.get(institution, 0) + 1
        if counts[institution] > CHANGES_EACH:
            return
        self._number += 1
        ring.append(
            ActivityChange(
                number=self._number,
                at=at,
                round=activity.round,
                institution=institution,
                activity=activity.activity,
                steps_done=activity.steps_done,
                steps_total=activity.steps_total,
                available_at=activity.available_at,
            )
        )

    def of(self, run: str, after: int) -> tuple[ActivityChange, ...]:
        """The run's changes with a number above `after`, oldest first."""
        return tuple(change for change in self._rings.get(run, ()) if change.number > after)

    def _ring(self, run: str) -> deque[ActivityChange]:
        if run not in self._rings:
            while len(self._rings) >= RUNS_KEPT:
                oldest = next(iter(self._rings))
                del self._rings[oldest]
                self._noted.pop(oldest, None)
            self._rings[run] = deque(maxlen=CHANGES_KEPT)
        return self._rings[run]
