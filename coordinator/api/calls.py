"""Calls in progress: who makes each, and what ends it early.

A stream handler asks at each message whether its caller is still a member. Between messages a sweep does: it ends calls of
those who were revoked, and calls whose peer neither sends nor reads for IDLE_SECONDS: nobody holds a thread for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from common.clock import Clock
from common.errors import UnknownCertificate
from common.statements.kinds import Member

IDLE_SECONDS = 60.0


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

    @property
    def member(self) -> Member:
        """Who calls. On the enrolment listener nobody is known, and asking is a bug."""
        if self._caller is None:
            raise RuntimeError("a call on the enrolment listener has no member")
        return self._caller.member

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

    def received(self, messages: Iterator[Any]) -> Iterator[Any]:
        """`messages`, with a check at each; waiting for the next one counts as idle."""
        while True:
            self._waiting_since = self._clock.monotonic()
            try:
                message = next(messages, None)
            finally:
                self._waiting_since = None
            if message is None:
                return
            self.check()
            yield message

    def sent(self, replies: Iterator[Any]) -> Iterator[Any]:
        """`replies`, with a check before each; waiting until the peer has taken one counts as idle."""
        for reply in replies:
            self.check()
            self._waiting_since = self._clock.monotonic()
            yield reply
            self._waiting_since = None

    def must_end(self, idle_seconds: float) -> bool:
        """Whether the sweep should end it: the caller was revoked, or the peer neither sends nor reads."""
        since = self._waiting_since
        if since is not None and self._clock.monotonic() - since > idle_seconds:
            return True
        try:
            self.check()
        except UnknownCertificate:
            return True
        return False

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
        ended = [call for call in calls if call.must_end(self._idle_seconds)]
        for call in ended:
            call.cancel()
        return len(ended)
