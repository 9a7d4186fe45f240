"""A blob that is here already, sent once more by somebody who must show that it has the bytes: checked, not stored again.

    Proof ── write(chunk) … ──▶ finish: every chunk came ──▶ FolderBlobStore.has_sent(owner, ref)

Everybody reads digests in the ledger. Without this, naming another's blob would be as good as having sent it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from common.blobs import digest
from common.blobs.incoming import IncomingChunk
from common.blobs.reference import BlobRef
from common.errors import CorruptChunk, MissingBlob, TruncatedChunk
from common.ledger.merkle import Bytes


class Proof:
    """What a Begin and a Put need of an upload, without a file. In memory: after a restart it begins anew."""

    def __init__(
        self, ref: BlobRef, leaves: bytes, *, is_there: Callable[[], bool], when_proven: Callable[[], None]
    ) -> None:
        """
        Args:
            ref, leaves: already checked against each other.
            is_there: whether the blob still is.
            when_proven: called when the last chunk has come, perhaps more than once.
        """
        self.ref = ref
        self._leaves = leaves
        self._is_there = is_there
        self._when_proven = when_proven
        self._came = bytearray(ref.chunks)
        self._lock = threading.Lock()

    def missing(self) -> list[tuple[int, int]]:
        """The chunks that did not come yet, as (first, count), ascending."""
        with self._lock:
            return ranges_of(bytes(self._came))

    def write(self, chunk: int, data: Bytes) -> None:
        """Verify one chunk.

        Raises:
            TruncatedChunk: the blob has no such chunk, or it has another length.
            CorruptChunk: the bytes are not those that the leaf names.
        """
        view = whole_chunk(self.ref, chunk, data)
        check_leaf(self.ref, self._leaves, chunk, view)
        with self._lock:
            self._came[chunk] = 1

    def incoming(self, chunk: int) -> IncomingChunk:
        """One chunk, to be brought piece by piece.

        Raises:
            TruncatedChunk: the blob has no such chunk.
        """
        if not 0 <= chunk < self.ref.chunks:
            raise TruncatedChunk(f"Chunk {chunk} lies beyond the end of blob {self.ref}.")
        return IncomingChunk(self.ref, self._leaves, chunk, self)

    def keep(self, chunk: int, data: memoryview, offset: int) -> None:
        """For an incoming chunk: it is not stored again."""

    def release(self, chunk: int, *, present: bool) -> None:
        """For an incoming chunk."""
        if present:
            with self._lock:
                self._came[chunk] = 1

    def finish(self) -> bool:
        """Whether every chunk came; then it is remembered.

        Raises:
            MissingBlob: the blob was deleted meanwhile, so what came is stored nowhere.
        """
        if self.missing():
            return False
        if not self._is_there():
            raise MissingBlob(f"{self.ref} was deleted while it was sent again.", "Call Begin again.")
        self._when_proven()
        return True

    def close(self) -> None:
        """Nothing is held."""


def ranges_of(present: bytes) -> list[tuple[int, int]]:
    """Where `present` holds zeros, as (first, count), ascending."""
    ranges = []
    first = present.find(0)
    while first >= 0:
        end = present.find(1, first)
        end = len(present) if end < 0 else end
        ranges.append((first, end - first))
        first = present.find(0, end)
    return ranges


def whole_chunk(ref: BlobRef, chunk: int, data: Bytes) -> memoryview:
    """`data` as bytes, if it has the length of that chunk.

    Raises:
        TruncatedChunk: it has not, or there is no such chunk.
    """
    view = memoryview(data).cast("B")
    if not 0 <= chunk < ref.chunks:
        raise TruncatedChunk(f"Chunk {chunk} lies beyond the end of blob {ref}, which has {ref.chunks} chunks.")
    expected = ref.chunk_size(chunk)
    if len(view) != expected:
        raise TruncatedChunk(f"Chunk {chunk} of blob {ref} came with {len(view):,} bytes, expected {expected:,}.")
    return view


def check_leaf(ref: BlobRef, leaves: bytes, chunk: int, view: memoryview) -> None:
    """
    Raises:
        CorruptChunk: the bytes are not those that the leaf names.
    """
    if digest.leaf(ref.algorithm, view) != digest.leaf_at(leaves, chunk):
        raise CorruptChunk(f"Chunk {chunk} of blob {ref} does not have the digest that its leaf list names.")
