"""How many streams carry a blob, and how much may be on the way on each: by round-trip time, inside a memory bound.

    one stream      at most window / round-trip time, whatever the link could do; and each lost segment costs it a share
    k streams       k times that, on k connections: streams of one connection share its window and its losses

A window is memory of the receiver. What comes in here may take MOST_WINDOWS_BYTES together. Of what goes out, the coordinator
says how much it takes on each stream: one window for all, since gRPC sets it for a listener (its `limits.window_mib`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.wire.channel import WINDOW_BYTES

MOST_STREAMS = 16
MOST_WINDOW_BYTES = 8 * 1024 * 1024
MOST_WINDOWS_BYTES = 32 * 1024 * 1024
"""Of all streams of a transfer together."""
STREAM_BYTES_PER_SECOND = 80_000_000
"""What a stream's window has room for. One that loses segments needs some windows' time for what it could else do in one, so
this is several times what a stream is to reach."""
SMALL_CHUNKS = 4
"""Blobs of fewer chunks are carried by one stream: asking for the round-trip time would take as long."""
PACED_BYTES_PER_SECOND = 500_000
"""Of a rate that is limited, each stream gets at least this: 4 Mbit/s."""

_BY_ROUND_TRIP = ((0.005, 1), (0.020, 2), (0.050, 4))
_FAR = 8

Streams = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Carriage:
    """How a blob is carried."""

    streams: int
    window_bytes: int

    @property
    def plain(self) -> bool:
        """Whether the connection that is there anyway is as good as any."""
        return self.streams == 1 and self.window_bytes == WINDOW_BYTES


PLAIN = Carriage(1, WINDOW_BYTES)


def carriage(
    chunks: int, round_trip_seconds: float, *, streams: Streams = "auto", bytes_per_second: float | None = None
) -> Carriage:
    """How to carry a blob of so many chunks.

    Args:
        streams: how many are wanted; `auto`: 1 below 5 ms, 2 below 20, 4 below 50, 8 from there on.
        bytes_per_second: what is allowed; None: no limit. A slow transfer is not cut into slower ones.
    """
    if chunks < SMALL_CHUNKS:
        return PLAIN
    wanted = streams if streams != "auto" else _automatic(round_trip_seconds)
    if bytes_per_second is not None:
        wanted = min(wanted, max(1, int(bytes_per_second / PACED_BYTES_PER_SECOND)))
    count = min(wanted, chunks, MOST_STREAMS)
    return Carriage(count, _window(round_trip_seconds, count))


def _automatic(round_trip_seconds: float) -> int:
    return next((count for below, count in _BY_ROUND_TRIP if round_trip_seconds < below), _FAR)


def _window(round_trip_seconds: float, streams: int) -> int:
    needed = int(round_trip_seconds * STREAM_BYTES_PER_SECOND)
    return _bounded(needed, min(MOST_WINDOW_BYTES, MOST_WINDOWS_BYTES // streams))


def _bounded(window: int, most: int) -> int:
    """A whole number of MiB."""
    return max(WINDOW_BYTES, min(window, most) // WINDOW_BYTES * WINDOW_BYTES)
