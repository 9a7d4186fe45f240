"""Until when: what people write, and which moment they mean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import UsageError
from participant.hours.pausing import parse_duration, parse_until

NOW = datetime(2026, 11, 21, 22, 12, tzinfo=UTC)


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("23:30", "2026-11-21T22:30:00+00:00"),
        ("07:00", "2026-11-22T06:00:00+00:00"),
        ("23:12", "2026-11-22T22:12:00+00:00"),
        ("2h", "2026-11-22T00:12:00+00:00"),
        ("1d12h", "2026-11-23T10:12:00+00:00"),
        ("2026-11-22T07:00:00+01:00", "2026-11-22T06:00:00+00:00"),
        ("2026-11-22T06:00:00Z", "2026-11-22T06:00:00+00:00"),
    ],
)
def test_a_time_of_day_is_the_next_one_of_this_machines_clock(text: str, expected: str) -> None:
    assert parse_until(text, NOW).isoformat() == expected


@pytest.mark.parametrize("text", ["tomorrow", "25:00", "07:61", "", "7", "2026-11-22T07:00:00", "-2h"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected a time of day \(07:00\), a duration \(2h, 30m\) or RFC 3339"):
        parse_until(text, NOW)


@pytest.mark.parametrize("text", ["0s", "2026-11-21T22:00:00Z"])
def test_what_is_past_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is past: it is 2026-11-21T22:12:00.000Z now"):
        parse_until(text, NOW)


def test_durations() -> None:
    assert parse_duration("90s") == timedelta(seconds=90)
    assert parse_duration("1d2h3m4s") == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert [parse_duration(text) for text in ("", "h", "2h30", "1.5h")] == [None] * 4
