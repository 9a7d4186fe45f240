"""The log of refused calls: each named, none of them able to fill the disk by trying again.

call refused  institution=mallory method=/llmasos.v1.Blobs/Begin code=too-many-requests reason=… repeated=0
call refused  peer=203.0.113.9    method=/llmasos.v1.Enrolment/Enrol code=invalid-invitation reason=… repeated=119
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from common.clock import Clock
from common.errors import LLMasOSError
from common.logs import get_logger

log = get_logger(__name__)

EVERY_SECONDS = 60.0
MOST_REMEMBERED = 4096


@dataclass(slots=True)
class _Line:
    """When it was last written, and how often it was not since."""

    at: float
    repeated: int = 0


class CallLog:
    """One line a minute for each caller, method and code; any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: OrderedDict[tuple[str, str, str], _Line] = OrderedDict()

    def refused(self, institution: str, peer: str, method: str, error: LLMasOSError) -> None:
        """Log it, or count it.

        Args:
            institution: who called, empty where nobody knows.
            peer: the address it came from.
        """
        repeated = self._due((institution or peer, method, error.code))
        if repeated is None:
            return
        who = {"institution": institution} if institution else {}
        log.warning(
            "call refused",
            extra={
                **who,
                "peer": peer,
                "method": method,
                "code": error.code,
                "reason": error.message,
                "repeated": repeated,
            },
        )

    def _due(self, key: tuple[str, str, str]) -> int | None:
        """How often it happened unlogged before, if it is to be logged now."""
        now = self._clock.monotonic()
        with self._lock:
            line = self._lines.get(key)
            if line is not None and now - line.at < EVERY_SECONDS:
                line.repeated += 1
                return None
            self._lines[key] = _Line(now)
            self._lines.move_to_end(key)
            while len(self._lines) > MOST_REMEMBERED:
                self._lines.popitem(last=False)
            return line.repeated if line is not None else 0
