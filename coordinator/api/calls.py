"""Calls in progress: who makes each, and what ends it early.

A stream handler asks at each message whether its caller is still a member. Between messages a sweep does: it ends calls of
those who were revoked, and calls whose peer neither sends nor reads for IDLE_SECONDS: nobody holds a thread for nothing. Nor
for next to nothing: a stream that made us wait so long in all, and brought less than SLOWEST_BYTES meanwhile, ends too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from common.clock import Clock
from common.errors import TooManyRequests, UnknownCertificate
from common.logs import get_logger
from common.statements.kinds import Member
from coordinator.ports import UploadPurpose

log = get_logger(__name__)

IDLE_SECONDS = 60.0
SLOWEST_BYTES = 64 * 1024
"""In IDLE_SECONDS of waiting. A link that carries one usual piece in that time, a quarter of it even, is fast enough."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who speaks on the work listener. `still_active` raises UnknownCertificate once the roster says otherwise."""

    member: Member
    still_active: Callable[[], object]


class Call:
    """One call, as a servicer sees it in place of grpc's context."""

    def __init__(self, context: Any, clock: Clock, caller: Caller | None) -> None:
        self._context, self._clock, self._caller = context, clock, caller
        self._waiting_since: float | None = None
        self.method = ""
        self.idle_seconds = IDLE_SECONDS
        self.first_sha256: str | None = None
        """Of the first message as it came, hexadecimal; None before it has."""
        self.purpose: UploadPurpose | None = None
        """What a transfer is for, once a servicer has read that."""
        self.recorded = True
        """Whether a refusal from here on is kept as one; a servicer says no to what is nobody's fault."""

    @property
    def member(self) -> Member:
        """Who calls. On the enrolment listener nobody is known, and asking is a bug."""
        if self._caller is None:
            raise RuntimeError("a call on the enrolment listener has no member")
        return self._caller.member

    @property
    def institution(self) -> str:
        """Whose call it is; on the enrolment listener nobody's."""
        return self._caller.member.name if self._caller is not None else ""

    def check(self) -> None:
        """
        Raises:
            UnknownCertificate: the caller is no longer an active member.
        """
        if self._caller is not None:
            self._caller.still_active()

    def is_active(self) -> bool:
        """Whether the other side still waits for an answer."""
        return bool(self._context.is_active())

    def received(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        """`messages`, with a check at each; waiting for the next one counts as idle.

        Raises:
            UnknownCertificate: the caller was revoked meanwhile.
            TooManyRequests: the stream is so slow that it only holds its place.
        """
        waited, came = 0.0, 0
        while True:
            self._waiting_since = since = self._clock.monotonic()
            try:
                message = next(messages, None)
            finally:
                self._waiting_since = None
            if message is None:
                return
            self.check()
            if self.first_sha256 is None:
                self.first_sha256 = sha256(message).hexdigest()
            waited, came = waited + self._clock.monotonic() - since, came + len(message)
            if waited > self.idle_seconds:
                _expect_progress(came, waited)
                waited, came = 0.0, 0
            yield message

    def sent(self, replies: Iterator[Any]) -> Iterator[Any]:
        """`replies`, with a check before each; waiting until the peer has taken one counts as idle."""
        for reply in replies:
            self.check()
            self._waiting_since = self._clock.monotonic()
            yield reply
            self._waiting_since = None

    def must_end(self) -> Literal["idle", "revoked"] | None:
        """Why the sweep should end it, if so: the peer neither sends nor reads, or the caller was revoked."""
        since = self._waiting_since
        if since is not None and self._clock.monotonic() - since > self.idle_seconds:
            return "idle"
        try:
            self.check()
        except UnknownCertificate:
            return "revoked"
        return None

    def cancel(self) -> None:
        """Ends the call from another thread: blocked reads and writes in its handler fail at once."""
        self._context.cancel()


class OpenCalls:
    """All calls in progress on a listener; any thread."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._calls: set[Call] = set()

    def add(self, call: Call) -> None:
        call.idle_seconds = self._idle_seconds
        with self._lock:
            self._calls.add(call)

    def remove(self, call: Call) -> None:
        with self._lock:
            self._calls.discard(call)

    def __len__(self) -> int:
        with self._lock:
            return len(self._calls)

    def sweep(self) -> int:
        """Ends what must end; how many calls that were."""
        with self._lock:
            calls = list(self._calls)
        reasons = [(call, reason) for call in calls if (reason := call.must_end()) is not None]
        for call, reason in reasons:
            log.warning(
                "call ended early", extra={"institution": call.institution, "method": call.method, "reason": reason}
            )
            call.cancel()
        return len(reasons)


def _expect_progress(came: int, waited: float) -> None:
    if came < SLOWEST_BYTES:
        raise TooManyRequests(
            f"The stream brought {came:,} bytes in {waited:.0f} seconds of waiting, expected at least {SLOWEST_BYTES:,}: "
            "it holds a place that others need.",
            "Send what is there at once; chunks that arrived are kept, and Begin says which are missing.",
        )
