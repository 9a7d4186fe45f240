"""A run as an operator's command follows it: found by a prefix, across a coordinator's restart, for a limited time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from common.errors import CoordinatorUnreachable, UnknownObject
from coordinator.api.client import OperatorSession
from coordinator.ports import RunView

RunArgument = Annotated[str, typer.Argument(help="The run's id, or a unique beginning of it.", show_default=False)]
WATCH_PATIENCE_SECONDS = 300.0
WATCH_RETRY_SECONDS = 2.0
CLOCK_SECONDS = 0.25
"""The call's own deadline may strike so much before ours."""


def views(
    session: OperatorSession, run: str, say: Callable[[str], None], *, until: float | None = None
) -> Iterator[RunView]:
    """The run's views until it ended; a coordinator that restarts meanwhile is waited for.

    Args:
        say: told of each attempt to reach it again.
        until: monotonic seconds at which to stop, if any; the iterator then just ends.

    Raises:
        CoordinatorUnreachable: from the beginning, or for longer than WATCH_PATIENCE_SECONDS.
        UnknownObject: no run, or more than one, has this prefix.
    """
    seen_at: float | None = None
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return
        try:
            for view in session.watch(run, timeout=left):
                seen_at = time.monotonic()
                yield view
            return
        except CoordinatorUnreachable as err:
            now = time.monotonic()
            if until is not None and now >= until - CLOCK_SECONDS:
                return
            if seen_at is None or now - seen_at > WATCH_PATIENCE_SECONDS:
                raise
            say(f"{err.message} Trying again.")
            time.sleep(WATCH_RETRY_SECONDS)


def newest_view(session: OperatorSession, run: str) -> RunView:
    """The run's view now, all of its rounds included.

    Raises:
        UnknownObject: no run, or more than one, has this prefix.
    """
    stream = session.watch(run)
    try:
        return next(stream)
    except StopIteration as err:
        raise UnknownObject(f"The coordinator showed nothing of run {run!r}.") from err
    finally:
        stream.close()
