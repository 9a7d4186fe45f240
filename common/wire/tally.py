"""How far a transfer is: bytes that the receiver holds, of how many, how fast, and how long it will take.

Rate and remaining time are of what passed in this transfer: what an earlier attempt or process had moved counts as done, and
makes nothing look fast.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from common.wire.messages import TransferProgress

RATE_WINDOW_SECONDS = 10.0
_STEP_SECONDS = 0.5


class Rate:
    """Bytes a second over the last while. Not thread-safe: its owner locks."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._moved = 0
        self._marks: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def add(self, count: int) -> float:
        """Counts bytes; the rate with them."""
        now = self._monotonic()
        self._moved += count
        if now - self._marks[-1][0] >= _STEP_SECONDS:
            self._marks.append((now, self._moved))
            while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_WINDOW_SECONDS:
                self._marks.popleft()
        since, before = self._marks[0]
        return (self._moved - before) / (now - since) if now - since >= _STEP_SECONDS else 0.0


class Tally:
    """Counts what all streams of one transfer move; any thread."""

    def __init__(
        self,
        bytes_total: int,
        on_bytes: Callable[[int], object],
        on_progress: Callable[[TransferProgress], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            on_bytes: told of each piece, one at a time.
            on_progress: told with it where the transfer stands.
        """
        self._total, self._on_bytes, self._on_progress = bytes_total, on_bytes, on_progress
        self._lock = threading.Lock()
        self._rate = Rate(monotonic)
        self._done = 0

    def begin(self, bytes_missing: int) -> None:
        """An attempt begins; so many bytes are to come, the rest is there."""
        with self._lock:
            self._done = self._total - bytes_missing
            self._tell(0)

    def moved(self, count: int) -> None:
        with self._lock:
            self._done = min(self._total, self._done + count)
            self._on_bytes(count)
            self._tell(count)

    def lost(self, count: int) -> None:
        """So many bytes of a chunk came for nothing: its stream broke."""
        with self._lock:
            self._done -= count

    def _tell(self, count: int) -> None:
        self._on_progress(TransferProgress(self._done, self._total, round(self._rate.add(count))))
