"""Over which connections a blob goes: the session's own near by, several of its own over a long way.

    round trip below 5 ms   one stream on the session's channel
    longer                  the bulk listener, where there is one: the kernels open each window as far as the way is long
                            else channels of gRPC's with the window that the round-trip time asks for

gRPC sets a listener's window once for all, and it is memory of the process; so without a bulk listener uploads over long ways
are as fast as the coordinator's `limits.window_mib` lets them be. Near by, gRPC takes less processor time: it works TLS without
Python's lock (ADR 0027).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from common.blobs.reference import BlobRef
from common.errors import CoordinatorUnreachable, TooManyRequests
from common.wire.bulk.calls import BulkBlobs
from common.wire.bulk.line import PIECE_BYTES
from common.wire.bulk.way import BulkWay
from common.wire.channel import MESSAGE_BYTES, MOST_PIECE_BYTES, split_address
from common.wire.framing import blobs_stub
from common.wire.lanes import Lane, OwnLane, SharedLane
from common.wire.pacing import Pacer
from common.wire.proxy import proxy_for
from common.wire.streams import PLAIN, SMALL_CHUNKS, Carriage, Streams, carriage
from common.wire.transfer import TransferOptions

CONNECT_SECONDS = 30.0
ROUND_TRIP_TRIES = 3
ROUND_TRIP_SECONDS = 600.0
"""How long a measured round-trip time is believed."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a session lends.

    Args:
        blobs: a stub of Blobs over the session's channel of the moment.
        channel: a new channel with that window, for one stream; raises CoordinatorUnreachable once the session is closed.
        ask: any small call.
    """

    blobs: Any
    channel: Callable[[int], Any]
    ask: Callable[[], object]


class Ways:
    """Of one session; any thread."""

    def __init__(self, address: str, link: Link, bulk: BulkWay, streams: Streams) -> None:
        """
        Args:
            address: the work listener's.
            streams: how many carry a large blob at most.
        """
        self._address, self._link, self._bulk, self._streams = address, link, bulk, streams
        self._round_trip: tuple[float, float] | None = None
        self._lock = threading.Lock()
        self._open: set[OwnLane | BulkBlobs] = set()

    @contextmanager
    def opened(
        self, ref: BlobRef, pacer: Pacer, options: TransferOptions | None
    ) -> Iterator[tuple[Sequence[Lane], TransferOptions]]:
        """Lanes for one transfer, and how it is to use them; connections that are made for it are closed after it."""
        how, options = self._carriage(ref, pacer), replace(options or TransferOptions(), pacer=pacer)
        if how.plain:
            # Large pieces only near by, and unlimited: pacing goes by pieces.
            large = MOST_PIECE_BYTES if pacer.bytes_per_second is None else MESSAGE_BYTES
            yield [SharedLane(self._link.blobs)], replace(options, most_piece_bytes=large)
            return
        bulk = self._bulk_blobs()
        if bulk is not None:
            with self._kept([bulk]):
                yield [SharedLane(bulk)] * how.streams, replace(options, most_piece_bytes=PIECE_BYTES)
            return
        own = [OwnLane(lambda: self._link.channel(how.window_bytes), blobs_stub) for _ in range(how.streams)]
        with self._kept(own):
            # Small pieces: over a long way each waits for its window.
            yield own, replace(options, most_piece_bytes=MESSAGE_BYTES)

    def close(self) -> None:
        """Ends transfers in progress on connections of their own."""
        with self._lock:
            lanes = list(self._open)
        for lane in lanes:
            lane.close()

    def round_trip_seconds(self) -> float:
        """The way's, the shortest of some tries; measured anew when it is old.

        By opening a connection, which the kernels do between them: a call would tell how busy the coordinator is, and busy
        coordinators need no more connections. Through a proxy it is a call all the same.

        Raises:
            LLMasOSError: the coordinator is not reached.
        """
        now = time.monotonic()
        if self._round_trip is None or now - self._round_trip[0] > ROUND_TRIP_SECONDS:
            host, port = split_address(self._address)
            if proxy_for(host, os.environ) is None:
                seconds = min(_timed_handshake(host, port) for _ in range(ROUND_TRIP_TRIES))
            else:
                self._link.ask()  # connects, where no connection is
                seconds = min(self._timed_call() for _ in range(ROUND_TRIP_TRIES))
            self._round_trip = (now, seconds)
        return self._round_trip[1]

    def _timed_call(self) -> float:
        started = time.monotonic()
        self._link.ask()
        return time.monotonic() - started

    def _carriage(self, ref: BlobRef, pacer: Pacer) -> Carriage:
        if ref.chunks < SMALL_CHUNKS:
            return PLAIN
        try:
            round_trip = self.round_trip_seconds()
        except (CoordinatorUnreachable, TooManyRequests):
            return PLAIN  # the transfer itself tries again, and says what is wrong
        return carriage(ref.chunks, round_trip, streams=self._streams, bytes_per_second=pacer.bytes_per_second)

    def _bulk_blobs(self) -> BulkBlobs | None:
        try:
            return self._bulk.blobs(self._link.blobs)
        except (CoordinatorUnreachable, TooManyRequests):
            return None  # as above

    @contextmanager
    def _kept(self, lanes: Sequence[OwnLane | BulkBlobs]) -> Iterator[None]:
        """While the block lasts, `close` ends them; they end with it in any case."""
        with self._lock:
            self._open.update(lanes)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(lanes)
            for lane in lanes:
                lane.close()


def _timed_handshake(host: str, port: int) -> float:
    """Seconds until a TCP connection stands: one round trip, a name's resolution not counted.

    Raises:
        CoordinatorUnreachable: none does.
    """
    try:
        kind, protocol, address = next(
            (family, proto, where)
            for family, _, proto, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        with socket.socket(kind, socket.SOCK_STREAM, protocol) as connection:
            connection.settimeout(CONNECT_SECONDS)
            started = time.monotonic()
            connection.connect(address)
            return time.monotonic() - started
    except OSError as err:
        raise CoordinatorUnreachable(f"No connection to {host}:{port}: {err.strerror or err}.") from err
