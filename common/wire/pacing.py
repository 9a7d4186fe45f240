"""No faster than allowed: one bucket for all streams of a direction, whose rate may change while they run.

pacer = Pacer(lambda: 2.5e6)            bytes a second; None: no limit
pacer.take(len(piece), stop.is_set)     returns when so many bytes may pass, or when told to stop
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BURST_SECONDS = 0.1
"""What may pass at once after a pause, in seconds of the rate."""
LOOK_SECONDS = 0.5
"""How often whoever waits looks whether the rate has changed, or the transfer is to end."""

BYTES_PER_MBIT = 125_000


class Pacer:
    """A token bucket that may be overdrawn by one piece: each passes whole, and the next ones wait for it. Any thread."""

    def __init__(
        self,
        rate: Callable[[], float | None] = lambda: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """
        Args:
            rate: bytes a second now; None: as fast as it goes.
            monotonic: seconds of a clock that only goes forward.
            wait: waits so many seconds.
        """
        self._rate, self._monotonic, self._wait = rate, monotonic, wait
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._counted_at = monotonic()

    @property
    def bytes_per_second(self) -> float | None:
        """The rate of now; None: no limit."""
        return self._rate()

    def take(self, count: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Returns when `count` bytes may pass, or when `stopped`."""
        while (seconds := self._try(count)) > 0 and not stopped():
            self._wait(min(seconds, LOOK_SECONDS))

    def _try(self, count: int) -> float:
        """0 where the bytes may pass, and are counted; else after how many seconds they may, at this rate."""
        rate = self._rate()
        with self._lock:
            now = self._monotonic()
            passed, self._counted_at = now - self._counted_at, now
            if rate is None:
                self._tokens = 0.0
                return 0.0
            self._tokens = min(rate * BURST_SECONDS, self._tokens + passed * rate)
            if self._tokens <= -1:  # a part of a byte is rounding, which no wait makes good
                return -self._tokens / rate
            self._tokens -= count
            return 0.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """Both directions of one party, each shared by all of its transfers."""

    up: Pacer = field(default_factory=Pacer)
    down: Pacer = field(default_factory=Pacer)
