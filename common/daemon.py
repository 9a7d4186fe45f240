"""What both daemons need of the system: a bound on the allocator, and a word when to end."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from types import FrameType

_M_ARENA_MAX = -8
_ARENAS = 2


def bound_memory() -> None:
    """Keep glibc from giving each thread an arena of its own, which lets idle threads hold megabytes; elsewhere nothing.

    The same as MALLOC_ARENA_MAX=2, but without a wrapper that somebody may forget. Call it before threads start.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def stop_event(lifeline_fd: int | None = None) -> threading.Event:
    """An event that is set when this process is to end in order.

    Args:
        lifeline_fd: an inherited pipe's reading end. Its other end closes when the starting process ends, however it
            ends, and then this one does too. None: only signals count.

    Must be called on the main thread.
    """
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if lifeline_fd is not None:
        threading.Thread(target=_watch, args=(lifeline_fd, stopping), name="lifeline", daemon=True).start()
    return stopping


def _watch(lifeline_fd: int, stopping: threading.Event) -> None:
    while os.read(lifeline_fd, 1):
        pass
    stopping.set()
