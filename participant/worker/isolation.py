"""What ties a worker to its agent's life, and how far it is kept apart from it."""

from __future__ import annotations

import os
import socket
import threading

LIFELINE_EXIT = 75
"""Exit code of a worker whose agent is gone."""


def watch_lifeline(descriptor: int) -> None:
    """End this process at once, whatever it does, when the other end of the inherited pipe closes."""

    def wait() -> None:
        try:
            while os.read(descriptor, 1):
                pass
        finally:
            os._exit(LIFELINE_EXIT)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def is_isolated(agent_uid: int) -> bool:
    """Whether this process runs as another user than the agent and sees no network interface but loopback."""
    return os.getuid() != agent_uid and {name for _, name in socket.if_nameindex()} <= {"lo", "lo0"}
