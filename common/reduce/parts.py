"""Numbers from anywhere in a delta, verified: for rules that need all institutions' numbers side by side.

    a chunk is wanted for the first time    read whole, hashed against its leaf; the digests of its slices are kept
    a part of it, then and later            the slices that it lies in are read, and hashed against those

So a byte that changed at any time is found, and a part costs what it weighs: without the slices' digests the whole chunk
would be hashed for each part. Memory is a chunk and a part for each lane, and 4 KiB of digests for each delta and chunk in use.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from common.blobs import digest
from common.blobs.reader import ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs.base import DeltaCodec, Float32s
from common.errors import CorruptChunk
from common.reduce.window import DeltaWindow

SLICE_BYTES = 32_768
"""Divides a chunk."""

CHUNKS_IN_USE = 4
"""Of so many chunks of a delta digests are kept: lanes are at most one part from each other."""


@runtime_checkable
class PartSource(Protocol):
    """A blob of which any bytes can be read, without hashing."""

    def read_unverified(self, position: int, into: memoryview) -> None: ...


class SliceDigests:
    """One delta's, shared by all lanes."""

    def __init__(self, source: ChunkSource) -> None:
        self.source = source
        self._lock = threading.Lock()
        self._by_chunk: dict[int, list[bytes]] = {}

    def of(self, chunk: int, window: DeltaWindow) -> list[bytes]:
        """Of a chunk that was verified, now or before.

        Raises:
            WrongTensors, CorruptChunk: as `DeltaWindow.read`.
        """
        with self._lock:
            if chunk not in self._by_chunk:
                if len(self._by_chunk) == CHUNKS_IN_USE:
                    del self._by_chunk[next(iter(self._by_chunk))]  # the one that was wanted first
                content = window.read_whole(self.source, chunk)
                self._by_chunk[chunk] = [_digest(content[at:][:SLICE_BYTES]) for at in _slices(len(content))]
            return self._by_chunk[chunk]


def _digest(piece: memoryview) -> bytes:
    """By BLAKE3 whatever the consortium's algorithm is: it is the faster one, and nobody else sees these."""
    return digest.leaf("blake3", piece)


def _slices(size: int) -> range:
    return range(0, size, SLICE_BYTES)


class PartReader:
    """One lane's way to any delta's numbers; deltas are known by their positions."""

    def __init__(self, codec: DeltaCodec, tensors_header: bytes, deltas: Sequence[SliceDigests]) -> None:
        self._codec, self._deltas = codec, deltas
        self._window = DeltaWindow(codec, tensors_header)
        self._bytes = memoryview(bytearray())
        self._decoded: Float32s = np.empty(0, dtype=np.float32)

    def numbers(self, position: int, first: int, end: int) -> Float32s:
        """That delta's numbers from `first` to before `end`; valid until the next call.

        Raises:
            WrongTensors: the header is not the manifest's.
            CorruptChunk: the bytes changed on disk.
        """
        start, beyond, before = self._window.span(first, end)
        encoded = self._verified(self._deltas[position], start, beyond)
        elements = self._codec.elements(len(encoded))
        if len(self._decoded) < elements:
            self._decoded = np.empty(elements, dtype=np.float32)
        return self._codec.decode(encoded, self._decoded)[before : before + end - first]

    def _verified(self, delta: SliceDigests, start: int, beyond: int) -> memoryview:
        """The blob's bytes from `start` to before `beyond`."""
        low = start // SLICE_BYTES * SLICE_BYTES
        high = min(-(-beyond // SLICE_BYTES) * SLICE_BYTES, delta.source.ref.size)
        if len(self._bytes) < high - low:
            self._bytes = memoryview(bytearray(high - low))
        for chunk in range(low // CHUNK_BYTES, -(-high // CHUNK_BYTES)):
            begin, end = max(low, chunk * CHUNK_BYTES), min(high, (chunk + 1) * CHUNK_BYTES)
            self._read(delta, chunk, begin, self._bytes[begin - low : end - low])
        return self._bytes[start - low : beyond - low]

    def _read(self, delta: SliceDigests, chunk: int, begin: int, into: memoryview) -> None:
        """Whole slices of one chunk."""
        if not isinstance(delta.source, PartSource):
            content = self._window.read_whole(delta.source, chunk)
            into[:] = content[begin - chunk * CHUNK_BYTES :][: len(into)]
            return
        expected = delta.of(chunk, self._window)
        delta.source.read_unverified(begin, into)
        first = (begin - chunk * CHUNK_BYTES) // SLICE_BYTES
        for at in _slices(len(into)):
            if _digest(into[at : at + SLICE_BYTES]) != expected[first + at // SLICE_BYTES]:
                raise CorruptChunk(f"Chunk {chunk} of blob {delta.source.ref} was changed on disk while it was read.")
