"""The participant's metrics say what journal, records and status say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.clock import ManualClock
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from participant.config import HomeLayout
from participant.memory.journal import Egress, Journal
from participant.memory.records import Records, Work
from participant.status import StatusFile
from participant.telemetry import Observed, ParticipantCollector

PREFIX = "llmasos_participant_"
AT = "2026-01-01T00:00:00.000Z"


class Home:
    """A home with a journal, a status and a certificate for 30 days."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.layout = HomeLayout(folder)
        self.layout.identity.mkdir()
        now = self.clock.now()
        authority = Authority.create("hospitals", now=now)
        self.layout.tls_certificate.write_bytes(
            authority.issue_institution(TlsKey.generate().csr("clinic"), "clinic", now=now, days=30)
        )
        self.journal, self.records = Journal(self.layout.journal), Records(self.layout.journal)
        self.status = StatusFile(self.layout.status, self.clock)
        self.problem = ""

    def scrape(self, name: str, **labels: str) -> float | None:
        return self.registry().get_sample_value(PREFIX + name, labels)

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        observed = Observed(self.layout, self.journal, self.records, lambda: 7, lambda: self.problem, self.clock)
        registry.register(ParticipantCollector(observed))
        return registry

    def close(self) -> None:
        self.records.close()
        self.journal.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def test_every_metric_has_our_prefix_and_a_help_text_before_anything_happened(home: Home) -> None:
    families = list(home.registry().collect())
    assert len(families) >= 10
    for family in families:
        assert family.name.startswith(PREFIX)
        assert len(family.documentation) > 10, family.name


def test_what_left_is_counted_by_kind(home: Home) -> None:
    for kind, digest in (("delta", "a"), ("delta", "b"), ("contribution", "c"), ("contribution", "c")):
        home.journal.book(Egress(at=AT, kind=kind, bytes=100, digest=digest, receiver="coordinator"))
    assert home.scrape("egress_bytes_total", kind="delta") == 200
    assert home.scrape("contributions_total") == 1
    assert home.scrape("ledger_entries") == 7


def test_the_workers_time_is_counted_by_device(home: Home) -> None:
    for seconds, device in ((1.5, "cpu"), (2.0, "cpu"), (4.0, "H100")):
        home.records.worked(Work(run="r", round=1, started_at=AT, seconds=seconds, device=device))
    assert home.scrape("worker_seconds_total", device="cpu") == 3.5
    assert home.scrape("worker_seconds_total", device="H100") == 4


def test_the_agents_state_is_told(home: Home) -> None:
    home.status.connection("connected")
    home.status.doing("training", run="r", round=3)
    home.status.worker(isolated=True)
    assert home.scrape("activity", activity="training") == 1
    assert home.scrape("connected") == 1
    assert home.scrape("round") == 3
    assert home.scrape("worker_isolated") == 1
    home.status.connection("unreachable")
    assert home.scrape("connected") == 0


def test_a_policy_that_cannot_be_used_shows(home: Home) -> None:
    assert home.scrape("policy_problem") == 0
    home.problem = "policy.yaml:3: …"
    assert home.scrape("policy_problem") == 1


def test_a_certificates_time_runs_out(home: Home) -> None:
    home.clock.advance(seconds=timedelta(days=31).total_seconds())
    assert home.scrape("certificate_expiry_seconds") == -timedelta(days=1).total_seconds()
