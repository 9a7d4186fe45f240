"""One blob on its way in: chunks in any order, from several threads, verified before they are written.

The file has its full size from the start and lies in the owner's folder of partial blobs; what it holds is known by hashing
it, so a crash at any moment loses nothing but the chunks that had not reached the disk.

    partial/OWNER/ALGORITHM-ROOT.part  ── write(chunk) … ──▶  finish: fsync, rename  ──▶  ALGORITHM/2 hex/ROOT.blob
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from common.blobs import digest, disk
from common.blobs.incoming import IncomingChunk
from common.blobs.proof import ranges_of, whole_chunk
from common.blobs.reader import chunk_buffer
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import MissingBlob, TruncatedChunk
from common.homes import sync_folder
from common.ledger.merkle import Bytes


class Upload:
    """A blob being written. All streams of one owner that carry the same blob share one object."""

    def __init__(self, ref: BlobRef, leaves: bytes, *, partial: Path, final: Path, durable: bool = True) -> None:
        """
        Args:
            ref, leaves: already checked against each other.
            partial, final: where the blob grows, and where it goes; on one file system.
            durable: whether `finish` waits for the disk.
        """
        self.ref = ref
        self._leaves = leaves
        self._partial = partial
        self._final = final
        self._durable = durable
        self._present = bytearray(ref.chunks)
        self._fd = -1
        self._started_from: bytes | None = None
        self._starts_over = False
        self._in_flight = 0
        self._incoming: dict[int, IncomingChunk] = {}
        self._finished = False
        self._discarded = False
        self._released = False
        self._lock = threading.Lock()
        self._finishing = threading.Lock()
        self._on_finished: Callable[[], None] = lambda: None
        self._on_chunk: Callable[[int], None] = lambda chunk: None

    @classmethod
    def finished(cls, ref: BlobRef, leaves: bytes, *, final: Path) -> Upload:
        """An upload of a blob that is there already: nothing is missing."""
        upload = cls(ref, leaves, partial=final, final=final)
        upload._finished = True
        return upload

    @property
    def is_finished(self) -> bool:
        """Whether the blob is in its final place."""
        return self._finished

    def when_finished(self, then: Callable[[], None]) -> None:
        """Call `then` after the blob is in its final place, perhaps more than once."""
        self._on_finished = then

    def when_chunk_came(self, then: Callable[[int], None]) -> None:
        """Call `then` with each chunk that was verified and written, in the thread that brought it."""
        self._on_chunk = then

    def start_from(self, path: Path, leaves: bytes) -> None:
        """Before `open`: write over the file of a blob that is given up, unless an earlier process left a partial file.

        Args:
            path, leaves: that blob's. Where its leaf list says the same as ours, the chunk may be there already.
        """
        with disk.storage("reuse", path):
            disk.private_folder(self._partial.parent)
            if self._partial.exists():
                path.unlink()
            else:
                os.replace(path, self._partial)
                self._started_from = leaves

    def start_over(self) -> None:
        """Before `open`: what lies at the partial file's place is to be written over, and nothing in it counts."""
        self._starts_over = True

    def open(self) -> None:
        """Create the file, or find out which chunks an earlier process left; a second call does nothing.

        Raises:
            StorageFailure: the disk refuses.
            MissingBlob: discarded meanwhile.
        """
        with self._lock:
            self._released = False
            if self._finished or self._fd >= 0:
                return
            self._check_wanted()
            with disk.storage("create", self._partial):
                disk.private_folder(self._partial.parent)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(self._partial, flags, disk.FILE_MODE)
                try:
                    if os.fstat(fd).st_size and not self._starts_over:
                        self._find_present(fd)
                    os.ftruncate(fd, self.ref.size)
                except OSError:
                    os.close(fd)
                    raise
            self._fd = fd

    def _find_present(self, fd: int) -> None:
        buffer = chunk_buffer(self.ref)
        for index in range(self.ref.chunks):
            if self._started_from is not None and not self._same_leaf(self._started_from, index):
                continue
            chunk = buffer[: self.ref.chunk_size(index)]
            got = disk.read_at(fd, chunk, index * CHUNK_BYTES)
            self._present[index] = got == len(chunk) and self._leaf_matches(index, chunk)

    def missing(self) -> list[tuple[int, int]]:
        """The chunks that are still to come, as (first, count), ascending."""
        with self._lock:
            if self._finished:
                return []
            return ranges_of(bytes(self._present))

    def write(self, chunk: int, data: Bytes) -> None:
        """Verify and keep one chunk; one that is there already is not written again.

        Raises:
            TruncatedChunk: the blob has no such chunk, or it has another length.
            CorruptChunk: the bytes are not those that the leaf names; the chunk is still missing.
            MissingBlob: the upload was discarded or let go of.
            StorageFailure: the disk refuses.
        """
        view = whole_chunk(self.ref, chunk, data)
        incoming = self.incoming(chunk)
        try:
            incoming.write(view)
            incoming.finish()
        finally:
            incoming.abandon()

    def incoming(self, chunk: int) -> IncomingChunk:
        """One chunk, to be brought piece by piece; one that is there already is only checked.

        Raises:
            TruncatedChunk: the blob has no such chunk.
            MissingBlob: the upload was discarded or let go of.
        """
        if not 0 <= chunk < self.ref.chunks:
            raise TruncatedChunk(f"Chunk {chunk} lies beyond the end of blob {self.ref}.")
        while True:
            with self._lock:
                if self._finished or self._present[chunk]:
                    return IncomingChunk(self.ref, self._leaves, chunk, None)
                self._check_open()
                other = self._incoming.get(chunk)
                if other is None:
                    self._incoming[chunk] = mine = IncomingChunk(self.ref, self._leaves, chunk, self)
                    self._in_flight += 1
                    return mine
            other.abandon()

    def read_back(self, chunk: int, into: memoryview) -> memoryview:
        """For `when_chunk_came`: the bytes that were just verified, as the first part of `into`.

        Raises:
            StorageFailure: the disk cannot be read.
        """
        view = into[: self.ref.chunk_size(chunk)]
        with disk.storage("read", self._partial):
            disk.read_at(self._fd, view, chunk * CHUNK_BYTES)
        return view

    def keep(self, chunk: int, data: memoryview, offset: int) -> None:
        """For an incoming chunk."""
        self._check_wanted()
        with disk.storage("write", self._partial):
            disk.write_at(self._fd, data, offset)
            if self._durable:
                disk.start_writing_back(self._fd, offset, len(data))

    def release(self, chunk: int, *, present: bool) -> None:
        """For an incoming chunk."""
        seen = False
        try:
            if present:
                self._on_chunk(chunk)
                seen = True
        finally:
            with self._lock:
                self._present[chunk] = seen
                del self._incoming[chunk]
            self._leave()

    def finish(self) -> bool:
        """Make the blob durable and visible, if it is whole; whether it is. Any number of threads may ask.

        Raises:
            StorageFailure: the disk refuses; ask again later.
            MissingBlob: discarded meanwhile.
        """
        with self._finishing, disk.storage("finish", self._final):
            if not self._finished:
                if not self._enter():
                    return False
                try:
                    self._publish()
                finally:
                    self._leave()
            # Also when another owner's upload put it there a moment ago: its name may not be durable yet.
            if self._durable:
                sync_folder(self._final.parent)
        self._on_finished()
        return True

    def _publish(self) -> None:
        if self._durable:
            os.fsync(self._fd)
        disk.private_folder(self._final.parent)
        leaves = self._partial.with_suffix(".leaves")
        disk.write_file(leaves, self._leaves, durable=self._durable)
        with self._lock:
            # Under the lock that `discard` takes: what lies at this path is ours only until then.
            self._check_wanted()
            os.replace(leaves, self._final.with_suffix(".leaves"))
            os.utime(self._partial)  # a blob's age counts from here: the statement that names it is on its way
            os.replace(self._partial, self._final)
            self._finished = True

    def discard(self) -> None:
        """Remove the partial file, unless it is finished; streams that still write get an error."""
        with self._lock:
            if self._finished or self._discarded:
                return
            self._discarded = True
            with disk.storage("remove", self._partial):
                self._partial.unlink(missing_ok=True)
                self._partial.with_suffix(".leaves").unlink(missing_ok=True)
            self._close_if_idle()

    def _enter(self) -> bool:
        """Hold the file open to finish it; False while chunks are missing."""
        with self._lock:
            self._check_open()
            whole = 0 not in self._present
            self._in_flight += whole
            return whole

    def _check_open(self) -> None:
        self._check_wanted()
        if self._fd < 0:
            raise MissingBlob(f"The upload of blob {self.ref} was let go of: begin it again.", "Call Begin again.")

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._in_flight == 0 and self._fd >= 0 and (self._finished or self._discarded or self._released):
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Let go of the file and keep it, once nobody writes: a later `open` finds the chunks again."""
        with self._lock:
            self._released = True
            self._close_if_idle()

    def _check_wanted(self) -> None:
        if self._discarded:
            raise MissingBlob(
                f"The upload of blob {self.ref} was discarded while parts of it still came.", "Call Begin again."
            )

    def _leaf_matches(self, index: int, chunk: memoryview) -> bool:
        return digest.leaf(self.ref.algorithm, chunk) == digest.leaf_at(self._leaves, index)

    def _same_leaf(self, leaves: bytes, index: int) -> bool:
        return digest.leaf_at(leaves, index) == digest.leaf_at(self._leaves, index)
