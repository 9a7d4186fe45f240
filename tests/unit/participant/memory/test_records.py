"""Local records: measured here, kept here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from participant.memory.records import EVENTS_KEPT, Alone, Event, Measurement, Records, Work

EARLY, LATE = "2026-11-20T00:00:00.000Z", "2026-11-21T00:00:00.000Z"


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    records = Records(tmp_path / "journal.sqlite")
    yield records
    records.close()


def test_work_is_found_by_run_and_by_time(records: Records) -> None:
    first, second = Work("a", 1, EARLY, 12.5, "cpu", 640), Work("b", 1, LATE, 2.0, "NVIDIA H100", 64)
    records.worked(first)
    records.worked(second)
    assert records.work() == [first, second]
    assert records.work("a") == [first]
    assert records.work(since=LATE) == [second]
    assert records.work("a", since=LATE) == []


def test_a_round_that_was_measured_again_counts_once(records: Records) -> None:
    for loss in (2**20, 2**19):
        records.measured(Measurement("a", 2, "train", loss, 100, LATE))
    records.measured(Measurement("a", 1, "train", 2**21, 100, EARLY))
    assert [(each.round, each.loss_sum_fixed) for each in records.measurements("a")] == [(1, 2**21), (2, 2**19)]
    assert records.measurements("b") == []


def test_the_newest_training_alone_counts(records: Records) -> None:
    records.trained_alone(Alone("a", 10, 2**20, 100, EARLY))
    records.trained_alone(Alone("a", 20, 2**19, 100, LATE))
    assert records.alone("a") == Alone("a", 20, 2**19, 100, LATE)
    assert records.alone("b") is None


def test_events_come_oldest_first_and_the_oldest_go(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    assert EVENTS_KEPT > 1000
    monkeypatch.setattr("participant.memory.records.EVENTS_KEPT", 3)
    for number in range(5):
        records.note(Event(EARLY, "policy changed", {"number": number}))
    assert [event.fields["number"] for event in records.events()] == [2, 3, 4]
    assert [event.fields["number"] for event in records.events(limit=2)] == [3, 4]
