"""One chunk on its way in, piece by piece: hashed as it comes, and written where it belongs before it is whole.

What is not verified yet may so lie in a partial file, but counts for nothing: a chunk is there once `finish` has compared its
digest, and after a crash the file is hashed. Of two streams that bring the same chunk only the later one writes: the other's
connection may be dead, and nobody knows it yet.
"""

from __future__ import annotations

import threading
from typing import Protocol

from common.blobs import digest
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import CorruptChunk, TruncatedChunk
from common.ledger.merkle import leaf_hasher


class ChunkKeeper(Protocol):
    """Where chunks end up."""

    def keep(self, chunk: int, data: memoryview, offset: int) -> None:
        """Write bytes at `offset` of the blob's file."""
        ...

    def release(self, chunk: int, *, present: bool) -> None:
        """The chunk is there, or nobody writes to it any more."""
        ...


class IncomingChunk:
    """Used by one thread, which ends it with `finish` or `abandon`; another may `abandon` it meanwhile."""

    def __init__(self, ref: BlobRef, leaves: bytes, chunk: int, keeper: ChunkKeeper | None) -> None:
        """
        Args:
            ref, leaves: already checked against each other.
            chunk: one of the blob's.
            keeper: None where the bytes are only to be checked.
        """
        self._ref, self._leaves, self._chunk, self._keeper = ref, leaves, chunk, keeper
        self._hasher = leaf_hasher(digest.HASH_FUNCTIONS[ref.algorithm])
        self._size = ref.chunk_size(chunk)
        self._filled = 0
        self._lock = threading.Lock()

    def write(self, data: bytes | memoryview) -> None:
        """Append the chunk's next bytes.

        Raises:
            TruncatedChunk: more than the chunk has.
            MissingBlob: the upload was discarded.
            StorageFailure: the disk refuses.
        """
        view = memoryview(data).cast("B")
        if self._filled + len(view) > self._size:
            raise TruncatedChunk(
                f"Chunk {self._chunk} of blob {self._ref} came with at least {self._filled + len(view):,} bytes, "
                f"expected {self._size:,}."
            )
        self._hasher.update(view)
        with self._lock:
            if self._keeper is not None:
                self._keeper.keep(self._chunk, view, self._chunk * CHUNK_BYTES + self._filled)
        self._filled += len(view)

    def finish(self) -> None:
        """Compare the digest, and count the chunk as there.

        Raises:
            TruncatedChunk: bytes are missing.
            CorruptChunk: the bytes are not those that the leaf names; the chunk is still missing.
        """
        whole = self._filled == self._size
        right = whole and self._hasher.digest() == digest.leaf_at(self._leaves, self._chunk)
        self._release(present=right)
        if not whole:
            raise TruncatedChunk(
                f"Chunk {self._chunk} of blob {self._ref} came with {self._filled:,} bytes, expected {self._size:,}."
            )
        if not right:
            raise CorruptChunk(
                f"Chunk {self._chunk} of blob {self._ref} does not have the digest that its leaf list names."
            )

    def abandon(self) -> None:
        """The rest will not come, or counts for nothing: the chunk is missing as before. After `finish` it does nothing."""
        self._release(present=False)

    def _release(self, *, present: bool) -> None:
        with self._lock:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.release(self._chunk, present=present)
