"""Rates that are kept on the average, that change while somebody waits, and that end a wait when told to stop."""

from __future__ import annotations

import threading

import pytest

from common.clock import ManualClock
from common.wire.pacing import BURST_SECONDS, LOOK_SECONDS, Pacer

PIECE = 256 * 1024


class Timed:
    """A pacer whose waits move a clock by hand."""

    def __init__(self, rate: float | None) -> None:
        self.clock, self.rate = ManualClock(), rate
        self.pacer = Pacer(lambda: self.rate, monotonic=self.clock.monotonic, wait=self._wait)

    def _wait(self, seconds: float) -> None:
        assert 0 < seconds <= LOOK_SECONDS
        self.clock.advance(seconds=seconds)

    def seconds_for(self, pieces: int) -> float:
        before = self.clock.monotonic()
        for _ in range(pieces):
            self.pacer.take(PIECE)
        return self.clock.monotonic() - before


def test_without_a_limit_nothing_waits() -> None:
    assert Timed(None).seconds_for(1000) == 0


@pytest.mark.parametrize("rate", [62_500, 2_500_000, 125_000_000])
def test_the_average_is_the_rate(rate: int) -> None:
    timed = Timed(rate)
    timed.seconds_for(2)
    assert timed.seconds_for(200) == pytest.approx(200 * PIECE / rate, rel=0.01)


def test_a_pause_saves_up_a_moment_and_no_more() -> None:
    timed = Timed(1_000_000)
    timed.seconds_for(10)
    timed.clock.advance(seconds=3600)
    assert timed.seconds_for(40) >= 39 * PIECE / 1_000_000 - BURST_SECONDS - 0.01


def test_a_new_rate_counts_for_whoever_waits_already() -> None:
    timed = Timed(62_500)
    timed.pacer.take(PIECE)
    timed.pacer.take(PIECE)
    # 4 s of waiting at the old rate; half a second later it is looked up again.
    timed.rate = None
    assert timed.seconds_for(1) <= LOOK_SECONDS


def test_a_wait_ends_when_it_is_to_stop() -> None:
    stop, rounds = threading.Event(), 0

    def wait(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        stop.set()

    pacer = Pacer(lambda: 1.0, monotonic=lambda: 0.0, wait=wait)
    pacer.take(PIECE)
    pacer.take(PIECE, stop.is_set)
    assert rounds == 1


def test_streams_of_one_direction_share_the_rate() -> None:
    pacer = Pacer(lambda: 4_000_000.0)
    passed: list[int] = []
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            pacer.take(16_384, stop.is_set)
            passed.append(16_384)

    threads = [threading.Thread(target=stream) for _ in range(4)]
    for thread in threads:
        thread.start()
    threading.Event().wait(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    # 0.5 s, what may pass at once, and the last piece of each; less on a busy machine.
    assert sum(passed) <= 4_000_000 * (0.5 + BURST_SECONDS) * 1.5
