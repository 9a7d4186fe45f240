"""Looks after work in progress: why it must end, while somebody else does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from common.errors import LLMasOSError
from common.ledger.state import LedgerState
from common.logs import get_logger
from participant.memory.mirror import Mirror

log = get_logger(__name__)

WATCH_SECONDS = 0.5

End = Literal["stopping", "over", "interrupted"]
"""Why work in progress ends: this process does, nobody waits for it any more, or it goes on later."""


class Interrupted(Exception):
    """Hours, a person or an order stopped the work in progress: it goes on later, from its snapshot. Never leaves the agent."""


class Watch:
    """While the `with` block lasts, `reason` is asked at each change of the ledger, and every WATCH_SECONDS.

    Args:
        over: set as soon as there is a reason; every long step of the work waits on it.
        reason: a pure look at the ledger and at what people ordered; its failures are logged and end nothing.
    """

    def __init__(self, mirror: Mirror, over: threading.Event, reason: Callable[[LedgerState], End | None]) -> None:
        self._mirror = mirror
        self._reason = reason
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.over = over
        self.why: End | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._mirror.wake()
        self._thread.join()

    def _run(self) -> None:
        size, wakes = 0, self._mirror.wakes
        while not self.over.is_set():
            state = self._mirror.wait_beyond(size, WATCH_SECONDS, wakes=wakes)
            size, wakes = state.size, self._mirror.wakes
            try:
                why = self._reason(state)
            except LLMasOSError as err:
                log.warning("cannot tell whether work may go on", extra={"code": err.code, "error": err.message})
                continue
            if why is not None:
                self.why = why
                self.over.set()
