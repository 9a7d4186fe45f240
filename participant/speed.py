"""How fast transfers may be at which hours: participant.yaml's `transfer.max_mbit_per_s`, as the session's pacers ask for it.

pacing = pacing_of(config.transfer, clock)      one bucket for each direction
limits_at(config.transfer, clock.now())         what counts now, and until when, for `status` and `doctor`
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from common.clock import Clock
from common.windows import Window, is_open, next_closing, next_opening
from common.wire.pacing import BYTES_PER_MBIT, Pacer, Pacing
from participant.config import SpeedLimit, TransferSettings

LOOK_SECONDS = 1.0
"""How often the timetable is read while something is moved."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts at a moment: Mbit/s, None where there is no limit. `until`: when another entry counts, UTC."""

    up: float | None
    down: float | None
    until: datetime | None


def limits_at(settings: TransferSettings, now: datetime) -> Limits:
    """The first entry whose hours it is; without one there is no limit."""
    entries = [(entry, _windows(entry)) for entry in settings.max_mbit_per_s]
    changes = []
    for entry, windows in entries:
        if is_open(windows, now):
            if (closes := next_closing(windows, now)) is not None:
                changes.append(closes)
            return Limits(entry.up, entry.down, min(changes, default=None))
        if (opens := next_opening(windows, now)) is not None:
            changes.append(opens)
    return Limits(None, None, min(changes, default=None))


def pacing_of(settings: TransferSettings, clock: Clock) -> Pacing:
    """Pacers that follow the timetable, also while a transfer runs."""
    if not settings.max_mbit_per_s:
        return Pacing()
    timetable = _Timetable(settings, clock)
    return Pacing(up=Pacer(timetable.rate("up")), down=Pacer(timetable.rate("down")))


class _Timetable:
    """Rates of now, read from the entries once a second at most; any thread."""

    def __init__(self, settings: TransferSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lock = threading.Lock()
        self._read: tuple[float, Limits] | None = None

    def rate(self, direction: str) -> Callable[[], float | None]:
        """Bytes a second, `up` or `down`."""

        def now() -> float | None:
            limits = self._limits()
            mbit = limits.up if direction == "up" else limits.down
            return mbit * BYTES_PER_MBIT if mbit is not None else None

        return now

    def _limits(self) -> Limits:
        with self._lock:
            moment = self._clock.monotonic()
            if self._read is None or moment - self._read[0] >= LOOK_SECONDS:
                self._read = (moment, limits_at(self._settings, self._clock.now()))
            return self._read[1]


def _windows(entry: SpeedLimit) -> Sequence[Window]:
    return [Window.parse(entry.hours)] if entry.hours is not None else []
