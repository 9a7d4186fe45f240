"""Reading blobs: every chunk is hashed again as it comes from disk, into a buffer that the caller reuses.

preadv, never mmap: a mapped file counts as resident memory, and one truncated behind our back would be SIGBUS.

    >>> buffer = chunk_buffer(ref)
    >>> with store.open(ref) as reader:
    ...     for index in range(reader.ref.chunks):
    ...         consume(reader.read_chunk(index, buffer))
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from common.blobs import digest, disk
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import CorruptChunk, TruncatedChunk


def chunk_buffer(ref: BlobRef) -> memoryview:
    """A buffer that holds any one chunk of this blob."""
    return memoryview(bytearray(min(ref.size, CHUNK_BYTES)))


class ChunkSource(Protocol):
    """A blob that can be read chunk by chunk, in any order."""

    @property
    def ref(self) -> BlobRef: ...

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        """Chunk `index`, in the first bytes of `into`; valid until `into` is used again."""
        ...


class BlobReader:
    """A blob's file. Several threads may read at once, each into a buffer of its own."""

    def __init__(
        self,
        path: Path,
        ref: BlobRef,
        leaves: bytes,
        *,
        offset: int = 0,
        when_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            path: the file.
            ref: what it must hold.
            leaves: the leaf list; checked against `ref`.
            offset: where in the file the blob begins, as in an evidence bundle.
            when_closed: called once, by `close`.

        Raises:
            BadBlobReference: leaf list and reference do not fit together.
            StorageFailure: the file cannot be opened.
        """
        digest.check_leaves(ref, leaves)
        self._ref = ref
        self.leaves = leaves
        self._path, self._offset, self._when_closed = path, offset, when_closed
        with disk.storage("open", path):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    @property
    def ref(self) -> BlobRef:
        """What this reader reads."""
        return self._ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        """The verified bytes of chunk `index`, as the first part of `into`.

        Args:
            index: from 0.
            into: writable, at least as long as the chunk; see `chunk_buffer`.

        Raises:
            CorruptChunk: the file ends early, or its bytes are not those that the leaf names.
            StorageFailure: the disk cannot be read.
        """
        size = self._ref.chunk_size(index)
        chunk = into[:size]
        if len(chunk) < size:
            raise ValueError(f"a buffer of {len(into)} bytes for a chunk of {size}")
        with disk.storage("read", self._path):
            got = disk.read_at(self._fd, chunk, self._offset + index * CHUNK_BYTES)
        if got < size:
            raise CorruptChunk(
                f"Blob {self._ref} ends {size - got:,} bytes before the end of chunk {index} on disk; it was cut short."
            )
        if digest.leaf(self._ref.algorithm, chunk) != digest.leaf_at(self.leaves, index):
            raise CorruptChunk(f"Chunk {index} of blob {self._ref} was changed on disk: its digest is not the leaf's.")
        return chunk

    def read_unverified(self, position: int, into: memoryview) -> None:
        """Fill `into` from that byte on, for whoever saw the bytes verified a moment ago.

        Raises:
            CorruptChunk: the file ends early.
            StorageFailure: the disk cannot be read.
        """
        with disk.storage("read", self._path):
            got = disk.read_at(self._fd, into, self._offset + position)
        if got < len(into):
            raise CorruptChunk(f"Blob {self._ref} ends before byte {position + len(into):,} on disk; it was cut short.")

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._when_closed()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobStream:
    """A blob from its first byte to its last, in pieces of any length, with one chunk in memory."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self._buffer = chunk_buffer(source.ref)
        self._chunk = self._buffer[:0]
        self._next_chunk = 0
        self.position = 0

    def take(self, max_bytes: int) -> memoryview:
        """The next bytes, at most `max_bytes`, fewer at a chunk's end, none at the blob's end; valid until the next call.

        Raises:
            CorruptChunk: as `BlobReader.read_chunk`.
        """
        if not self._chunk and self._next_chunk < self._source.ref.chunks:
            self._chunk = self._source.read_chunk(self._next_chunk, self._buffer)
            self._next_chunk += 1
        piece, self._chunk = self._chunk[:max_bytes], self._chunk[max_bytes:]
        self.position += len(piece)
        return piece

    def read_into(self, target: memoryview) -> None:
        """Fill `target` with the next bytes.

        Raises:
            TruncatedChunk: the blob has fewer bytes left.
            CorruptChunk: as `BlobReader.read_chunk`.
        """
        done = 0
        while done < len(target):
            piece = self.take(len(target) - done)
            if not piece:
                missing = len(target) - done
                raise TruncatedChunk(
                    f"Blob {self._source.ref} ends at byte {self.position:,}, {missing:,} bytes too early."
                )
            target[done : done + len(piece)] = piece
            done += len(piece)
