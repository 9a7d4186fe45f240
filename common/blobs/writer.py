"""Writing a blob from its first byte to its last, hashed as it goes by: what the reducer and file imports use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from common.blobs import digest, disk
from common.blobs.reference import CHUNK_BYTES, MAX_BLOB_BYTES, BlobRef, DigestName
from common.errors import BlobTooLarge
from common.ledger import merkle

Install = Callable[[Path, BlobRef, bytes], None]
"""Puts a durable file and its leaf list into the store."""


class LeafCounter:
    """Bytes in, leaf list and reference out; holds no byte of them."""

    def __init__(self, algorithm: DigestName) -> None:
        self._algorithm = algorithm
        self._h = digest.HASH_FUNCTIONS[algorithm]
        self._leaves = bytearray()
        self._hasher = merkle.leaf_hasher(self._h)
        self._in_chunk = 0
        self.size = 0

    def update(self, data: memoryview) -> None:
        """Count the next bytes of the blob."""
        while data:
            piece = data[: CHUNK_BYTES - self._in_chunk]
            self._hasher.update(piece)
            self._in_chunk += len(piece)
            self.size += len(piece)
            data = data[len(piece) :]
            if self._in_chunk == CHUNK_BYTES:
                self._end_chunk()

    def _end_chunk(self) -> None:
        self._leaves += self._hasher.digest()
        self._hasher = merkle.leaf_hasher(self._h)
        self._in_chunk = 0

    def result(self) -> tuple[BlobRef, bytes]:
        """Reference and leaf list; nothing may follow."""
        if self._in_chunk:
            self._end_chunk()
        leaves = bytes(self._leaves)
        root = merkle.root(self._h, digest.split_leaves(leaves)).hex()
        return BlobRef(algorithm=self._algorithm, size=self.size, root=root), leaves


class BlobWriter:
    """One new blob. Leaving the `with` block without `commit` leaves nothing behind.

    >>> with store.writer("blake3") as writer:
    ...     writer.write(b"...")
    ...     ref = writer.commit()
    """

    def __init__(self, path: Path, algorithm: DigestName, install: Install) -> None:
        """
        Args:
            path: where the blob grows; what is there already is written over.
            algorithm: the consortium's digest.
            install: called by `commit` with the durable file.
        """
        self._path = path
        self._install = install
        self._counter = LeafCounter(algorithm)
        self._unsent = 0
        with disk.storage("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, disk.FILE_MODE)

    def write(self, data: merkle.Bytes) -> None:
        """Append bytes.

        Raises:
            BlobTooLarge: beyond what a reference can name.
            StorageFailure: the disk refuses.
        """
        view = memoryview(data).cast("B")
        position = self._counter.size
        if position + len(view) > MAX_BLOB_BYTES:
            raise BlobTooLarge(f"A blob grows beyond {MAX_BLOB_BYTES:,} bytes.")
        self._counter.update(view)
        with disk.storage("write", self._path):
            disk.write_at(self._fd, view, position)
            self._unsent += len(view)
            if self._unsent >= CHUNK_BYTES:
                disk.start_writing_back(self._fd, position + len(view) - self._unsent, self._unsent)
                self._unsent = 0

    def commit(self) -> BlobRef:
        """Make the blob durable and visible under its reference.

        Raises:
            StorageFailure: the disk refuses.
        """
        ref, leaves = self._counter.result()
        with disk.storage("finish", self._path):
            os.ftruncate(self._fd, ref.size)
            os.fsync(self._fd)
        self._install(self._path, ref, leaves)
        self._close()
        return ref

    def abort(self) -> None:
        """Remove what was written; after `commit` this does nothing."""
        if self._fd >= 0:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
