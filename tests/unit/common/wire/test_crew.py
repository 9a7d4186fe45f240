"""Several streams at one pool of chunks: what breaks costs its share, what is refused ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from common.errors import CoordinatorUnreachable, LLMasOSError, NotAuthorised, TooManyRequests
from common.wire.crew import ChunkPool, Crew
from common.wire.lanes import Lane
from common.wire.transfer import Backoff

QUICK = Backoff(retries=3, first_seconds=0.001, most_seconds=0.001)


class Numbered:
    """A lane that counts how often it was to connect anew."""

    stub = None

    def __init__(self, number: int) -> None:
        self.number, self.renewed = number, 0

    def renew(self) -> None:
        self.renewed += 1


class Work:
    """Lanes that take one chunk after the other; `fails` says what the n-th lane raises at a chunk."""

    def __init__(self, chunks: int, lanes: int, fails: Callable[[int, int], LLMasOSError | None]) -> None:
        self.lanes = [Numbered(number) for number in range(lanes)]
        self.stop = threading.Event()
        self.crew = Crew(ChunkPool([(0, chunks)]), self.lanes, self.stop, QUICK)
        self.moved: list[tuple[int, int]] = []
        self._fails = fails
        self._start = threading.Barrier(lanes)
        self._begun: set[int] = set()

    def carry(self, lane: Lane) -> None:
        assert isinstance(lane, Numbered)
        if lane.number not in self._begun:
            self._begun.add(lane.number)
            self._start.wait(10)
        while (taken := self.crew.pool.take(1)) is not None:
            failure = self._fails(lane.number, taken[0])
            if failure is not None:
                self.crew.pool.give_back(*taken)
                raise failure
            self.moved.append((lane.number, taken[0]))

    def chunks(self) -> list[int]:
        return sorted(chunk for _, chunk in self.moved)


def test_each_chunk_is_taken_once() -> None:
    work = Work(200, 4, lambda lane, chunk: None)
    assert work.crew.run(work.carry) is None
    assert work.chunks() == list(range(200))


def test_what_a_broken_lane_had_not_moved_goes_to_the_others() -> None:
    work = Work(50, 3, lambda lane, chunk: CoordinatorUnreachable("broken") if lane == 1 else None)
    assert work.crew.run(work.carry) is None or work.chunks() == list(range(50))
    assert work.chunks() == list(range(50))
    assert {lane for lane, _ in work.moved} <= {0, 2}
    assert work.lanes[1].renewed <= QUICK.retries


def test_too_many_requests_means_fewer_streams() -> None:
    work = Work(50, 8, lambda lane, chunk: TooManyRequests("8 streams") if lane > 1 else None)
    assert work.crew.run(work.carry) is None
    assert work.chunks() == list(range(50))


def test_when_every_lane_is_refused_for_now_the_last_says_so() -> None:
    work = Work(50, 4, lambda lane, chunk: TooManyRequests("busy"))
    assert isinstance(work.crew.run(work.carry), TooManyRequests)
    assert work.crew.pool.left == 50


def test_a_refusal_ends_all_at_once() -> None:
    work = Work(10_000, 3, lambda lane, chunk: NotAuthorised("no") if (lane, chunk >= 0) == (2, True) else None)
    assert isinstance(work.crew.run(work.carry), NotAuthorised)


def test_a_fault_of_our_own_is_raised() -> None:
    work = Work(50, 2, lambda lane, chunk: None)

    def carry(lane: Lane) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work.crew.run(carry)


def test_told_to_stop_it_cancels_what_hangs() -> None:
    class Hanging:
        def __init__(self) -> None:
            self.cancelled = threading.Event()

        def cancel(self) -> None:
            self.cancelled.set()

    work = Work(50, 2, lambda lane, chunk: None)

    def carry(lane: Lane) -> None:
        with work.crew.calling(Hanging()) as call:
            work.stop.set()
            assert call.cancelled.wait(30)

    assert work.crew.run(carry) is None


def test_shares_get_smaller_towards_the_end() -> None:
    pool = ChunkPool([(0, 100)])
    shares = []
    while (taken := pool.take_share(4)) is not None:
        shares.append(taken)
    assert shares[0] == (0, 12)
    assert [count for _, count in shares] == sorted((count for _, count in shares), reverse=True)
    assert sum(count for _, count in shares) == 100
    assert ChunkPool([(3, 7), (20, 5)]).take_share(1) == (3, 7)
