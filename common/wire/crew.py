"""Several streams at one piece of work: chunks that are missing lie in a pool, and each stream takes from it as it can.

What a broken stream had not begun lies in the pool still, for the others; the stream itself tries again after a while. So a
slow or broken connection costs its share of the speed and nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Protocol

from common.errors import CoordinatorUnreachable, CorruptChunk, LLMasOSError, TooManyRequests, TruncatedChunk
from common.wire.lanes import Lane

STOP_POLL_SECONDS = 0.5
_BROKEN = (CoordinatorUnreachable, CorruptChunk, TruncatedChunk)


class ChunkPool:
    """Ranges of chunks that are to be moved; any thread."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._ranges = deque(ranges)
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """How many chunks nobody has taken."""
        with self._lock:
            return sum(count for _, count in self._ranges)

    def take(self, most: int) -> tuple[int, int] | None:
        """(first, count) of at most so many neighbours, the earliest there are; None: all are taken."""
        with self._lock:
            if not self._ranges:
                return None
            first, count = self._ranges.popleft()
            if count > most:
                self._ranges.appendleft((first + most, count - most))
            return first, min(count, most)

    def take_share(self, takers: int) -> tuple[int, int] | None:
        """A range for one of so many: long while much is left, short towards the end, so that all end together."""
        return self.take(self.left if takers == 1 else max(1, self.left // (2 * takers)))

    def give_back(self, first: int, count: int) -> None:
        """What was taken and not moved."""
        if count > 0:
            with self._lock:
                self._ranges.appendleft((first, count))


class Waits(Protocol):
    """How long to wait after so many failures in a row; common.wire.transfer.Backoff is one."""

    @property
    def retries(self) -> int: ...

    def wait_seconds(self, failures: int) -> float: ...


class Crew:
    """Works a pool off over lanes; made for one attempt."""

    def __init__(self, pool: ChunkPool, lanes: Sequence[Lane], stop: threading.Event, backoff: Waits) -> None:
        self.pool = pool
        self._lanes = lanes[: max(1, pool.left)]
        self._stop, self._backoff = stop, backoff
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._working = len(self._lanes)
        self._calls: set[Any] = set()
        self._failure: LLMasOSError | None = None

    @property
    def size(self) -> int:
        """How many lanes take part."""
        return len(self._lanes)

    def stopped(self) -> bool:
        """Whether streams are to end early."""
        return self._stop.is_set() or self._ending.is_set()

    def run(self, carry: Callable[[Lane], None]) -> LLMasOSError | None:
        """Has each lane `carry` until the pool is empty; what made the last one give up, if something did.

        One lane is worked in the calling thread and does not try again: whoever calls looks first what arrived.

        Raises:
            Exception: what is no failure of this family, from any lane.
        """
        if len(self._lanes) == 1:
            try:
                carry(self._lanes[0])
            except LLMasOSError as failure:
                return failure
            return None
        with ThreadPoolExecutor(len(self._lanes), thread_name_prefix="stream") as threads:
            pending = {threads.submit(self._work, carry, lane) for lane in self._lanes}
            done: set[Future[None]] = set()
            while pending:
                ended, pending = wait(pending, STOP_POLL_SECONDS, FIRST_COMPLETED)
                done |= ended
                if self.stopped() or any(each.exception() is not None for each in ended):
                    self._ending.set()
                    self._cancel()
        for each in done:
            each.result()
        return self._failure

    @contextmanager
    def calling(self, call: Any) -> Iterator[Any]:
        """While the block lasts, the call is cancelled when all are to end; it is cancelled at the end in any case."""
        with self._lock:
            self._calls.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)
            call.cancel()

    def _work(self, carry: Callable[[Lane], None], lane: Lane) -> None:
        failures = 0
        while not self.stopped():
            before = self.pool.left
            try:
                carry(lane)
                break
            except LLMasOSError as failure:
                failures = failures + 1 if self.pool.left >= before else 1
                if not self._goes_on(failure, failures):
                    return
            lane.renew()
            self._ending.wait(self._backoff.wait_seconds(failures))
        with self._lock:
            self._working -= 1

    def _goes_on(self, failure: LLMasOSError, failures: int) -> bool:
        """Whether a lane that failed tries again; where it does not, it is counted out."""
        with self._lock:
            broken = isinstance(failure, _BROKEN)
            if broken and failures <= self._backoff.retries and self.pool.left and not self.stopped():
                return True
            self._working -= 1
            if isinstance(failure, TooManyRequests) and self._working:
                return False  # fewer streams, then; what it had taken was given back
            self._failure = failure
            if not broken or not self._working:
                self._ending.set()
            return False

    def _cancel(self) -> None:
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()
