"""What institutions report of their local work: leases and live progress. In memory only; a restart begins empty.

A lease is renewed by each report. Two kinds of silence are excused, because the institution announced them:

    away until a time before the deadline    silence is excused until then; the lease begins anew at that time
    away until the deadline or later         nobody waits: lapsed at once, and shown as away, not as silent
    paused, and nobody knows until when      reports renew no lease: a round need not wait for a person
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from common.clock import Clock, parse_rfc3339
from common.ledger.staleness import is_awaited, most_stale
from common.statements.kinds import Member
from coordinator.ledger import Ledger
from coordinator.ports import Activity
from coordinator.rounds.phases import deadline, need_not_wait
from coordinator.watching.activities import ActivityChange, ActivityChanges

RATE_WINDOW_SECONDS = 10.0
ROUNDS_KEPT = 1000
"""Rounds that are remembered, of all runs together; views show fewer."""
MOVING = frozenset({"fetching", "sending"})
"""Activities in which a blob travels."""
AWAY = frozenset({"paused", "outside-hours", "machine-busy"})
"""Activities in which no work is done: states of their own, neither failure nor silence."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest report of one institution in one round, and its speed.

    Args:
        at: when it came, monotonic seconds.
        leased_from: from when silence counts against the sender, for whoever waits for it.
        back_at: until when an institution that is away said that it would be.
    """

    activity: Activity
    at: float
    tokens_per_second: float = 0.0
    leased_from: float = 0.0
    silent_from: float = 0.0
    back_at: datetime | None = None


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
    """Thread-safe; the engine asks `lapsed`, servicers tell `report`, `heard` and `moved`, views read the rest."""

    def __init__(self, ledger: Ledger, clock: Clock, lease_seconds: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._rounds = _Rounds()
        self._changes = ActivityChanges()
        self._last_seen: dict[str, datetime] = {}

    # --- told by servicers -------------------------------------------------------------------------------------------

    def report(self, sender: Member, activity: Activity) -> bool:
        """Renews the sender's lease; whether the round still takes contributions."""
        self.heard(sender)
        run = self._ledger.state.runs.get(activity.run)
        current = run.open_round if run else None
        if run is None or not is_awaited(run, activity.round):
            return False
        if current is None:
            return True  # the next round opens at once, and takes late deltas
        if sender.name not in current.opened.cohort:
            return False
        with self._lock:
            noted = self._rounds.note(activity.run, current.number)
            before = noted.seen.get(sender.name)
            seen = noted.seen[sender.name] = self._seen(before, activity)
            if before is None or _said(before.activity) != _said(activity):
                self._changes.note(self._clock.now(), sender.name, seen.activity)
        return self._ledger.seal_of(current.place.digest) is None or most_stale(run) > current.number - activity.round

    def heard(self, sender: Member) -> None:
        """The sender is there, whatever it asks."""
        with self._lock:
            self._last_seen[sender.name] = self._clock.now()

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

    def _seen(self, before: Seen | None, activity: Activity) -> Seen:
        now = self._clock.monotonic()
        back_at = parse_rfc3339(activity.available_at) if activity.activity in AWAY and activity.available_at else None
        until = now if back_at is None else max(now, now + (back_at - self._clock.now()).total_seconds())
        for_good = activity.activity == "paused" and back_at is None
        leased_from = before.leased_from if before is not None and for_good else until
        return Seen(activity, now, _speed(before, activity, now), leased_from, silent_from=until, back_at=back_at)

    # --- asked by the engine -----------------------------------------------------------------------------------------

    def lapsed(self, run: str, round_number: int, cohort: Sequence[str]) -> tuple[str, ...]:
        """Members for whom the round need not wait: without a report for a lease, counted from when this process first saw
        the round, or away until its deadline or longer."""
        now = self._clock.monotonic()
        record = self._ledger.state.runs.get(run)
        current = record.open_round if record else None
        until = deadline(current) if current is not None and current.number == round_number else None
        with self._lock:
            noted = self._rounds.note(run, round_number)
            opened = noted.opened = now if noted.opened is None else noted.opened
            seen = {name: noted.seen.get(name) for name in cohort}
        return tuple(
            name
            for name, found in seen.items()
            if now - (found.leased_from if found else opened) > self._lease_seconds
            or (found is not None and until is not None and need_not_wait(found.back_at, until))
        )

    # --- read by views -----------------------------------------------------------------------------------------------

    def seen(self, run: str, round_number: int, name: str) -> Seen | None:
        with self._lock:
            return self._rounds.get(run, round_number).seen.get(name)

    def silent(self, run: str, round_number: int, name: str) -> bool:
        """Whether nothing came from that member of the open round for a lease, announced absence left out."""
        now = self._clock.monotonic()
        with self._lock:
            noted = self._rounds.note(run, round_number)
            opened = noted.opened = now if noted.opened is None else noted.opened
            seen = noted.seen.get(name)
        return now - (seen.silent_from if seen else opened) > self._lease_seconds

    def traffic(self, run: str, round_number: int, name: str) -> tuple[int, int]:
        """Blob payload bytes down and up of one member in one round, since this process started."""
        with self._lock:
            entry = self._rounds.get(run, round_number).traffic.get(name)
            return (entry.down, entry.up) if entry else (0, 0)

    def last_seen(self, name: str) -> datetime | None:
        with self._lock:
            return self._last_seen.get(name)

    def changes(self, run: str, after: int = 0) -> tuple[ActivityChange, ...]:
        """The run's changes of activity with a number above `after`, oldest first, as far as they are remembered."""
        with self._lock:
            return self._changes.of(run, after)


def _said(activity: Activity) -> tuple[str, str]:
    """What of a report is worth a line in the run's log."""
    return activity.activity, activity.available_at if activity.activity in AWAY else ""


def _speed(before: Seen | None, activity: Activity, now: float) -> float:
    """Tokens a second, smoothed over reports of the same round."""
    if before is None or activity.tokens_done <= before.activity.tokens_done or now <= before.at:
        return before.tokens_per_second if before else 0.0
    newest = (activity.tokens_done - before.activity.tokens_done) / (now - before.at)
    if before.tokens_per_second == 0.0:
        return newest
    share = min(1.0, (now - before.at) / RATE_WINDOW_SECONDS)
    return before.tokens_per_second * (1 - share) + newest * share
