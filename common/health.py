"""Whether a daemon lives, and whether it can do what callers want of it: for probes and service managers.

alive     its threads run and its loop went round lately; who finds it dead should start it again
ready     alive, and nothing stands in the way: disk, certificate, connection; starting it again would not help

health = Health(alive=[heartbeat.fault], ready=[disk_fault])
health.ready()            # () or ("The disk of the blobs has 12 bytes free, …",)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.clock import Clock

Check = Callable[[], str | None]
"""What is wrong, as a sentence; None: nothing. Quick, never raises, any thread."""

STALE_SECONDS = 120.0
"""A loop that did not go round for so long hangs. The longest that one turn may take without a beat is a call to the disk."""


@dataclass(frozen=True, slots=True)
class Health:
    """What to look at, in this order."""

    alive_checks: Sequence[Check] = ()
    ready_checks: Sequence[Check] = ()

    def alive(self) -> tuple[str, ...]:
        """What is wrong with the process itself."""
        return tuple(fault for check in self.alive_checks if (fault := check()) is not None)

    def ready(self) -> tuple[str, ...]:
        """That, and what else stands in the way."""
        return (*self.alive(), *(fault for check in self.ready_checks if (fault := check()) is not None))


class Heartbeat:
    """Beaten by a loop at each turn and at each step of a long turn; any thread."""

    def __init__(self, clock: Clock, *, what: str) -> None:
        """
        Args:
            what: whose beat it is, at the beginning of a sentence.
        """
        self._clock, self._what = clock, what
        self._at = clock.monotonic()

    def beat(self) -> None:
        """The loop goes round."""
        self._at = self._clock.monotonic()

    def fault(self) -> str | None:
        """Whether it stopped (a Check)."""
        age = self._clock.monotonic() - self._at
        return None if age <= STALE_SECONDS else f"{self._what} has not gone round for {age:.0f} s."
