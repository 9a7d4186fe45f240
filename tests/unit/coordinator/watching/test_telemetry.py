"""The coordinator's metrics say what ledger, views and board say."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from common.errors import RefusalError
from coordinator.watching.telemetry import CoordinatorCollector, CountedBytes
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN

PREFIX = "llmasos_coordinator_"


class Scrape:
    """One scrape's values."""

    def __init__(self, coordinator: Coordinator, moved: CountedBytes | None = None) -> None:
        self._registry = CollectorRegistry()
        counted = moved or CountedBytes(coordinator.board)
        self._registry.register(CoordinatorCollector(coordinator.ledger, coordinator.views, counted, coordinator.clock))

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(PREFIX + name, labels)

    def families(self) -> dict[str, str]:
        return {family.name: family.documentation for family in self._registry.collect()}


def test_every_metric_has_our_prefix_and_a_help_text(coordinator: Coordinator) -> None:
    families = Scrape(coordinator).families()
    assert len(families) >= 15
    for name, text in families.items():
        assert name.startswith(PREFIX)
        assert len(text) > 10, name


def test_a_run_is_counted_from_the_ledger(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    scrape = Scrape(coordinator)
    assert scrape("rounds_total", outcome="committed") == 2
    assert scrape("rounds_total", outcome="abandoned") == 0
    assert scrape("contributions_total", institution="north") == 2
    assert scrape("runs_ended_total", reason="rounds-done") == 1
    assert scrape("runs_active") == 0
    assert scrape("ledger_entries") == coordinator.state.size
    assert scrape("round_seconds_count") == 2
    assert scrape("round_seconds_bucket", le="+Inf") == 2
    assert scrape("members", status="active") == 4


def test_refusals_are_counted_by_code(coordinator: Coordinator) -> None:
    coordinator.open_round()
    with pytest.raises(RefusalError) as caught:
        coordinator["north"].contribute(num_tokens=2**29 - 1)
    assert Scrape(coordinator)("refusals_total", code=caught.value.code) == 1


def test_bytes_are_counted_by_direction_and_still_reach_the_board(coordinator: Coordinator) -> None:
    coordinator.open_round()
    moved = CountedBytes(coordinator.board)
    moved.moved("north", down=5, up=7)
    moved.moved("east", up=1)
    scrape = Scrape(coordinator, moved)
    assert scrape("blob_bytes_total", direction="to-institutions") == 5
    assert scrape("blob_bytes_total", direction="from-institutions") == 8
    assert coordinator.board.traffic(RUN, 1, "north") == (5, 7)


def test_an_open_round_says_how_late_it_is(coordinator: Coordinator) -> None:
    coordinator.open_round(deadline_seconds=900)
    coordinator.clock.advance(seconds=1000)
    assert Scrape(coordinator)("round_overdue_seconds", run=RUN) == 100


def test_a_certificates_time_is_told_by_holder(coordinator: Coordinator) -> None:
    day = 24 * 3600
    scrape = Scrape(coordinator)
    assert scrape("certificate_expiry_seconds", holder="north") == pytest.approx(365 * day, abs=2 * day)
    assert scrape("certificate_expiry_seconds", holder="authority") == pytest.approx(3650 * day, abs=3 * day)
