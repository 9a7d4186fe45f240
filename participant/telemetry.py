"""The participant's metrics (docs/operations.md#metrics): read from journal, records and status at each scrape.

They are the institution's own: nothing here is sent anywhere, and the address is loopback's unless somebody chose another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from common.clock import Clock
from common.identity.certificates import load_certificate
from common.telemetry import counters, gauge, gauges
from participant.config import HomeLayout
from participant.memory.journal import Journal
from participant.memory.records import Records
from participant.status import read_status

PREFIX = "llmasos_participant_"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a scrape reads; any thread may."""

    layout: HomeLayout
    journal: Journal
    records: Records
    ledger_size: Callable[[], int]
    policy_problem: Callable[[], str]
    clock: Clock


class ParticipantCollector:
    """A prometheus_client collector."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterable[Metric]:
        """Every metric now. Counters start with the journal."""
        observed = self._observed
        yield from _state(read_status(observed.layout.status))
        yield from _journal(observed.journal)
        yield gauge(
            PREFIX + "ledger_entries", "Statements in this institution's copy of the ledger.", observed.ledger_size()
        )
        seconds: defaultdict[str, float] = defaultdict(float)
        for work in observed.records.work():
            seconds[work.device] += work.seconds
        yield counters(
            PREFIX + "worker_seconds", "Seconds that the worker spent on rounds, by device.", "device", seconds.items()
        )
        yield gauge(
            PREFIX + "policy_problem",
            "1 while policy.yaml cannot be used and the last good one counts.",
            1 if observed.policy_problem() else 0,
        )
        yield gauge(
            PREFIX + "certificate_expiry_seconds",
            "Seconds until this participant's certificate ends; negative afterwards.",
            (_expiry(observed.layout.tls_certificate) - observed.clock.now()).total_seconds(),
        )


def _state(status: dict[str, Any]) -> Iterator[Metric]:
    activity = str(status.get("activity", "unknown"))
    yield gauges(PREFIX + "activity", "1 for what the agent does now.", "activity", [(activity, 1)])
    yield gauge(
        PREFIX + "connected", "1 while the coordinator answers.", 1 if status.get("connection") == "connected" else 0
    )
    yield gauge(PREFIX + "round", "Round that the agent works on; 0 for none.", int(status.get("round") or 0))
    worker = status.get("worker") or {}
    yield gauge(
        PREFIX + "worker_isolated",
        "1 while the worker runs as another user and without a network.",
        1 if worker.get("isolated") else 0,
    )


def _journal(journal: Journal) -> Iterator[Metric]:
    sent: Counter[str] = Counter()
    contributions = set()
    for entry in journal.egress():
        sent[entry.kind] += entry.bytes
        if entry.kind == "contribution":
            contributions.add(entry.digest)
    yield counters(PREFIX + "egress_bytes", "Bytes that left this institution, by kind.", "kind", sorted(sent.items()))
    text = "Contributions that left this institution."
    yield CounterMetricFamily(PREFIX + "contributions", text, value=len(contributions))


def _expiry(certificate: Path) -> datetime:
    return load_certificate(certificate.read_bytes()).not_valid_after_utc
