"""What ties a worker to its agent's life, and how far it is kept apart from it."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

_SIOCGIFFLAGS, _IFF_UP = 0x8913, 0x1
"""Source: netdevice(7)."""

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
    """Whether this process is a boundary and not only a split: another user than the agent and not root, without rights of
    root's, and no network interface that is up but loopback.

    What was configured does not count, only what is so.
    """
    return os.getuid() not in (0, agent_uid) and not _capabilities() and not _network_interfaces()


def _capabilities() -> int:
    """The effective ones, as bits; any of them could undo the separation."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _network_interfaces() -> list[str]:
    """Interfaces that are up, loopback left out. A new namespace may hold tunnels of the kernel's, all of them down."""
    return [name for _, name in socket.if_nameindex() if name not in ("lo", "lo0") and _is_up(name)]


def _is_up(interface: str) -> bool:
    """Whether the interface could carry anything; where the system does not say, it could."""
    if sys.platform != "linux":
        return True
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16sH14x", interface.encode(), 0))
        except OSError:
            return True
    return bool(struct.unpack("16sH14x", answer)[1] & _IFF_UP)
