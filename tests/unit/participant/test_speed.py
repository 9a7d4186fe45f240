"""Speed limits by time of day: which entry counts, until when, and that a running transfer follows."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common.clock import ManualClock
from participant.config import SpeedLimit, TransferSettings
from participant.speed import Limits, limits_at, pacing_of

OFFICE = SpeedLimit(hours="mon-fri 08:00-18:00 UTC", up=20, down=50)
NIGHT = SpeedLimit(hours="daily 22:00-06:00 UTC")
OTHERWISE = SpeedLimit(up=100)
SETTINGS = TransferSettings(max_mbit_per_s=(OFFICE, NIGHT, OTHERWISE))


def monday(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 5, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "limits"),
    [
        (monday(9), Limits(20, 50, monday(18))),
        (monday(18), Limits(100, None, monday(22))),
        (monday(23), Limits(None, None, datetime(2026, 1, 6, 6, tzinfo=UTC))),
        (monday(6, 30), Limits(100, None, monday(8))),
    ],
)
def test_the_first_entry_whose_hours_it_is_counts_until_another_does(now: datetime, limits: Limits) -> None:
    assert limits_at(SETTINGS, now) == limits


def test_without_entries_there_is_no_limit() -> None:
    assert limits_at(TransferSettings(), monday(9)) == Limits(None, None, None)
    assert pacing_of(TransferSettings(), ManualClock()).up.bytes_per_second is None


def test_pacers_follow_the_clock() -> None:
    clock = ManualClock(monday(17, 59))
    pacing = pacing_of(SETTINGS, clock)
    assert (pacing.up.bytes_per_second, pacing.down.bytes_per_second) == (2_500_000, 6_250_000)
    clock.advance(seconds=61)
    assert (pacing.up.bytes_per_second, pacing.down.bytes_per_second) == (12_500_000, None)
    clock.advance(seconds=4 * 3600)
    assert (pacing.up.bytes_per_second, pacing.down.bytes_per_second) == (None, None)
