"""Progress: what was there before counts as done, and makes nothing look fast."""

from __future__ import annotations

from common.clock import ManualClock
from common.wire.messages import TransferProgress
from common.wire.tally import Tally

MB = 1_000_000


def test_resumed_bytes_are_done_and_not_in_the_rate() -> None:
    clock, told = ManualClock(), list[TransferProgress]()
    tally = Tally(100 * MB, lambda count: None, told.append, clock.monotonic)
    tally.begin(40 * MB)
    assert told[-1] == TransferProgress(60 * MB, 100 * MB, 0)
    assert told[-1].eta_seconds is None
    for _ in range(10):
        clock.advance(seconds=1)
        tally.moved(2 * MB)
    assert told[-1] == TransferProgress(80 * MB, 100 * MB, 2 * MB)
    assert told[-1].eta_seconds == 10


def test_the_rate_is_that_of_lately() -> None:
    clock, told = ManualClock(), list[TransferProgress]()
    tally = Tally(1000 * MB, lambda count: None, told.append, clock.monotonic)
    tally.begin(1000 * MB)
    for speed in (10, 1):
        for _ in range(30):
            clock.advance(seconds=1)
            tally.moved(speed * MB)
    assert MB <= told[-1].bytes_per_second <= 1.2 * MB


def test_an_attempt_that_lost_something_goes_back() -> None:
    told, passed = list[TransferProgress](), list[int]()
    tally = Tally(10, passed.append, told.append)
    tally.begin(10)
    tally.moved(6)
    tally.lost(2)
    tally.begin(6)
    assert (told[-1].bytes_done, sum(passed)) == (4, 6)
    tally.moved(6)
    assert (told[-1].bytes_done, told[-1].eta_seconds) == (10, 0.0)
    tally.moved(3)
    assert told[-1].bytes_done == 10
