"""What institutions report of their local work: leases and live progress. In memory only; a restart begins empty."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from common.clock import Clock
from common.statements.kinds import Member
from coordinator.ledger import Ledger
from coordinator.ports import Activity

RATE_WINDOW_SECONDS = 10.0
ROUNDS_KEPT = 1000
"""Rounds that are remembered, of all runs together; views show fewer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest report of one institution in one round, and its speed."""

    activity: Activity
    at: float
    tokens_per_second: float = 0.0


@dataclass(slots=True)
class _Traffic:
    down: int = 0
    up: int = 0


@dataclass(slots=True)
class _Round:
    """What is known of one round, by institution."""

    opened: float | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    traffic: dict[str, _Traffic] = field(default_factory=dict)


class _Rounds:
    """The newest ROUNDS_KEPT rounds that anything was noted of. Its owner locks."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, int], _Round] = {}

    def note(self, run: str, number: int) -> _Round:
        """The round, to be changed; the oldest one beyond the bound is forgotten."""
        if (run, number) not in self._rounds:
            while len(self._rounds) >= ROUNDS_KEPT:
                del self._rounds[next(iter(self._rounds))]
            self._rounds[run, number] = _Round()
        return self._rounds[run, number]

    def get(self, run: str, number: int) -> _Round:
        """The round, to be read."""
        return self._rounds.get((run, number)) or _Round()


class Board:
    """Thread-safe; the engine asks `lapsed`, servicers tell `report` and `moved`, views read the rest."""

    def __init__(self, ledger: Ledger, clock: Clock, lease_seconds: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._rounds = _Rounds()
        self._last_seen: dict[str, datetime] = {}

    def report(self, sender: Member, activity: Activity) -> bool:
        """Renews the sender's lease; whether the round still takes contributions."""
        run = self._ledger.state.runs.get(activity.run)
        current = run.open_round if run else None
        if current is None or current.number != activity.round or sender.name not in current.opened.cohort:
            return False
        now = self._clock.monotonic()
        with self._lock:
            seen = self._rounds.note(activity.run, activity.round).seen
            seen[sender.name] = Seen(activity, now, _speed(seen.get(sender.name), activity, now))
            self._last_seen[sender.name] = self._clock.now()
        return self._ledger.seal_of(current.place.digest) is None

    def moved(self, member: str, *, down: int = 0, up: int = 0) -> None:
        """Books blob payload bytes on the open rounds of the member."""
        open_rounds = [run.open_round for run in self._ledger.state.active_runs]
        with self._lock:
            self._last_seen[member] = self._clock.now()
            for current in open_rounds:
                if current is not None and member in current.opened.cohort:
                    noted = self._rounds.note(current.opened.run, current.number)
                    entry = noted.traffic.setdefault(member, _Traffic())
                    entry.down += down
                    entry.up += up

    def lapsed(self, run: str, round_number: int, cohort: Sequence[str]) -> tuple[str, ...]:
        """Members that have not reported for a lease, counted from when this process first saw the round."""
        now = self._clock.monotonic()
        with self._lock:
            noted = self._rounds.note(run, round_number)
            opened = noted.opened = now if noted.opened is None else noted.opened
            newest = {name: noted.seen[name].at if name in noted.seen else opened for name in cohort}
        return tuple(name for name in cohort if now - newest[name] > self._lease_seconds)

    def seen(self, run: str, round_number: int, name: str) -> Seen | None:
        with self._lock:
            return self._rounds.get(run, round_number).seen.get(name)

    def traffic(self, run: str, round_number: int, name: str) -> tuple[int, int]:
        """Blob payload bytes down and up of one member in one round, since this process started."""
        with self._lock:
            entry = self._rounds.get(run, round_number).traffic.get(name)
            return (entry.down, entry.up) if entry else (0, 0)

    def last_seen(self, name: str) -> datetime | None:
        with self._lock:
            return self._last_seen.get(name)


def _speed(before: Seen | None, activity: Activity, now: float) -> float:
    """Tokens a second, smoothed over reports of the same round."""
    if before is None or activity.tokens_done <= before.activity.tokens_done or now <= before.at:
        return before.tokens_per_second if before else 0.0
    newest = (activity.tokens_done - before.activity.tokens_done) / (now - before.at)
    if before.tokens_per_second == 0.0:
        return newest
    share = min(1.0, (now - before.at) / RATE_WINDOW_SECONDS)
    return before.tokens_per_second * (1 - share) + newest * share
