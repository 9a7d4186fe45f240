"""When a daemon ends: SIGTERM, Ctrl-C, or the end of the process that started it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


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
