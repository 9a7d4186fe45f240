"""A connection that breaks again and again: a proxy on loopback that lets so many bytes through and closes.

with CuttingProxy("127.0.0.1:7443", itertools.repeat(100_000)) as proxy:      # bytes, both ways together, a connection
    session = Session(proxy.address, …)
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.networks import Server

PIECE_BYTES = 16 * 1024


class CuttingProxy(Server):
    """Takes each connection on to `target`, and cuts it when as many bytes have passed as `allowances` says next.

    Connections beyond the last allowance are not cut; those that carry nothing take none.
    """

    def __init__(self, target: str, allowances: Iterator[int]) -> None:
        super().__init__()
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._allowances = allowances
        self._lock = threading.Lock()
        self.cuts = 0
        self.up = self.down = 0
        """Bytes that passed."""

    def handle(self, connection: socket.socket) -> None:
        left: list[int] = []
        with socket.create_connection(self._target, timeout=5) as other:
            other.settimeout(None)
            back = threading.Thread(target=self._carry, args=(other, connection, left, False), daemon=True)
            back.start()
            self._carry(connection, other, left, True)
            back.join()

    def _carry(self, source: socket.socket, sink: socket.socket, left: list[int], up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                with self._lock:
                    if not left:
                        left.append(next(self._allowances, 2**62))
                    if left[0] <= 0:
                        break
                    data, cut = data[: left[0]], len(data) >= left[0]
                    left[0] -= len(data)
                    self.cuts += cut
                    self.up, self.down = (self.up + len(data), self.down) if up else (self.up, self.down + len(data))
                sink.sendall(data)
                if cut:
                    break
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
