"""The way between institutions and their coordinator, which breaks, stands still, or is not there."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.networks import Server

PIECE_BYTES = 64 * 1024


class Way(Server):
    """A TCP proxy to `target`. `cut`, `stalled` and `gone` may be used from any thread."""

    def __init__(self, target: str = "") -> None:
        super().__init__()
        self.target = target
        self._moving = threading.Event()
        self._moving.set()
        self._gone = False
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()

    def cut(self) -> None:
        """Every connection breaks; new ones are taken."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _shut(end)

    def stall(self, stalled: bool) -> None:
        """Nothing passes, and nobody is told, until it is called with False."""
        (self._moving.clear if stalled else self._moving.set)()

    def leave(self, gone: bool) -> None:
        """Connections break and new ones find nobody, until it is called with False."""
        self._gone = gone
        if gone:
            self.cut()

    def handle(self, connection: socket.socket) -> None:
        host, _, port = self.target.rpartition(":")
        if self._gone:
            return
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as other:
            other.settimeout(None)
            with self._lock:
                self._ends |= {connection, other}
            back = threading.Thread(target=self._carry, args=(other, connection), daemon=True)
            back.start()
            self._carry(connection, other)
            back.join()
            with self._lock:
                self._ends -= {connection, other}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                self._moving.wait()
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
