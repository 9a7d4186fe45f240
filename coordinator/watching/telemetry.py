"""The coordinator's metrics (docs/operations.md#metrics): read from ledger, views and board at each scrape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from prometheus_client.core import HistogramMetricFamily, Metric

from common.clock import Clock, parse_rfc3339
from common.ledger.state import LedgerState, RoundRecord
from common.telemetry import counters, gauge, gauges
from coordinator.ledger import Ledger
from coordinator.ports import BytesMoved, CoordinatorStatus, Views

PREFIX = "llmasos_coordinator_"
ROUND_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper bounds of the histogram of rounds' lengths."""


class CountedBytes:
    """The BytesMoved port: passes on to the board, and counts for all institutions since this process started."""

    def __init__(self, inner: BytesMoved) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._totals = {"to-institutions": 0, "from-institutions": 0}

    def moved(self, member: str, *, down: int = 0, up: int = 0) -> None:
        self._inner.moved(member, down=down, up=up)
        with self._lock:
            self._totals["to-institutions"] += down
            self._totals["from-institutions"] += up

    def totals(self) -> dict[str, int]:
        """Bytes by direction."""
        with self._lock:
            return dict(self._totals)


class CoordinatorCollector:
    """A prometheus_client collector."""

    def __init__(self, ledger: Ledger, views: Views, moved: CountedBytes, clock: Clock) -> None:
        self._ledger = ledger
        self._views = views
        self._moved = moved
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """Every metric now. Counters of the ledger start with the consortium, those of bytes with this process."""
        state, status, now = self._ledger.state, self._views.status(), self._clock.now()
        yield gauges(PREFIX + "info", "1, with the release as a label.", "version", [(status.version, 1)])
        yield from _host(status)
        yield from _ledger(state)
        yield counters(
            PREFIX + "blob_bytes",
            "Bytes of models, deltas and tokenizers that passed since this process started, by direction.",
            "direction",
            self._moved.totals().items(),
        )
        yield self._round_seconds(state)
        yield gauges(
            PREFIX + "round_overdue_seconds",
            "Seconds since the deadline of each run's open round; negative before it.",
            "run",
            _overdue(state, now),
        )
        yield self._expiries(status, now)

    def _round_seconds(self, state: LedgerState) -> HistogramMetricFamily:
        lengths = [
            (self._ledger.appended_at(record.closed_place) - self._ledger.appended_at(record.place)).total_seconds()
            for record in _rounds(state)
            if record.closed_place is not None
        ]
        buckets = [(f"{bound:g}", float(sum(length <= bound for length in lengths))) for bound in ROUND_SECONDS]
        text = "Seconds from a round's opening to its close, over all runs."
        family = HistogramMetricFamily(PREFIX + "round_seconds", text)
        family.add_metric([], buckets=[*buckets, ("+Inf", float(len(lengths)))], sum_value=sum(lengths))
        return family

    def _expiries(self, status: CoordinatorStatus, now: datetime) -> Metric:
        held = {"coordinator": status.certificate_expires_at, "authority": status.authority_expires_at}
        held |= {
            view.name: view.certificate_expires_at
            for view in self._views.institutions()
            if view.status == "active" and view.certificate_expires_at
        }
        return gauges(
            PREFIX + "certificate_expiry_seconds",
            "Seconds until a certificate ends, by holder; negative afterwards.",
            "holder",
            [(name, (parse_rfc3339(moment) - now).total_seconds()) for name, moment in sorted(held.items()) if moment],
        )


def _host(status: CoordinatorStatus) -> Iterator[Metric]:
    yield gauge(PREFIX + "ledger_entries", "Statements in the ledger.", status.ledger_size)
    yield gauge(PREFIX + "trainers_connected", "Trainers heard of within the last minute.", status.trainers_connected)
    yield gauge(PREFIX + "open_calls", "Calls that are being answered.", status.open_calls)
    yield gauge(PREFIX + "blob_store_bytes", "Size of the blobs on disk.", status.blob_bytes)
    yield gauge(PREFIX + "disk_free_bytes", "Free space where the blobs lie.", status.disk_free_bytes)


def _ledger(state: LedgerState) -> Iterator[Metric]:
    members = Counter(member.status for member in (state.roster.members if state.roster else ()))
    outcomes = Counter(record.closed.outcome for record in _rounds(state) if record.closed is not None)
    given = Counter(name for record in _rounds(state) for name in record.contributions)
    codes = Counter(refusal.code for _, refusal in state.refusal_list)
    ends = Counter(run.ended.reason for run in state.runs.values() if run.ended is not None)
    yield gauges(PREFIX + "members", "Members in the newest roster, by status.", "status", sorted(members.items()))
    yield gauge(PREFIX + "runs_active", "Runs that have not ended.", len(state.active_runs))
    yield counters(PREFIX + "runs_ended", "Runs that ended, by reason.", "reason", sorted(ends.items()))
    known = {"committed": 0, "abandoned": 0} | dict(outcomes)
    yield counters(PREFIX + "rounds", "Rounds that were closed, by outcome.", "outcome", sorted(known.items()))
    yield counters(
        PREFIX + "contributions", "Contributions in the ledger, by institution.", "institution", sorted(given.items())
    )
    yield counters(PREFIX + "refusals", "Refusal statements in the ledger, by code.", "code", sorted(codes.items()))


def _rounds(state: LedgerState) -> Iterator[RoundRecord]:
    return (record for run in state.runs.values() for record in run.rounds)


def _overdue(state: LedgerState, now: datetime) -> Iterator[tuple[str, float]]:
    for run in state.active_runs:
        if run.open_round is not None:
            until = parse_rfc3339(run.open_round.deadline)
            yield run.run, (now - until).total_seconds()
