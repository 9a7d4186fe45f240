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
from common.blobs.proof import check_leaf, ranges_of, whole_chunk
from common.blobs.reader import chunk_buffer
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import MissingBlob
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
        self._in_flight = 0
        self._finished = False
        self._discarded = False
        self._released = False
        self._lock = threading.Lock()
        self._finishing = threading.Lock()
        self._on_finished: Callable[[], None] = lambda: None

    @classmethod
    def finished(cls, ref: BlobRef, *, final: Path) -> Upload:
        """An upload of a blob that is there already: nothing is missing."""
        upload = cls(ref, b"", partial=final, final=final)
        upload._finished = True
        return upload

    @property
    def is_finished(self) -> bool:
        """Whether the blob is in its final place."""
        return self._finished

    def when_finished(self, then: Callable[[], None]) -> None:
        """Call `then` after the blob is in its final place, perhaps more than once."""
        self._on_finished = then

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
                    if os.fstat(fd).st_size:
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
            CorruptChunk: the bytes are not those that the leaf names; nothing was written.
            MissingBlob: the upload was discarded or let go of.
            StorageFailure: the disk refuses.
        """
        view = whole_chunk(self.ref, chunk, data)
        if not self._enter(chunk):
            if not self._finished:
                check_leaf(self.ref, self._leaves, chunk, view)
            return
        try:
            check_leaf(self.ref, self._leaves, chunk, view)
            with disk.storage("write", self._partial):
                disk.write_at(self._fd, view, chunk * CHUNK_BYTES)
                if self._durable:
                    disk.start_writing_back(self._fd, chunk * CHUNK_BYTES, len(view))
            with self._lock:
                self._present[chunk] = 1
        finally:
            self._leave()

    def finish(self) -> bool:
        """Make the blob durable and visible, if it is whole; whether it is. Any number of threads may ask.

        Raises:
            StorageFailure: the disk refuses; ask again later.
            MissingBlob: discarded meanwhile.
        """
        with self._finishing, disk.storage("finish", self._final):
            if not self._finished:
                if not self._enter(None):
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

    def _enter(self, chunk: int | None) -> bool:
        """Hold the file open for one operation; False where there is nothing to do: the chunk is there, or not all are."""
        with self._lock:
            if self._finished:
                return False
            self._check_wanted()
            if self._fd < 0:
                raise MissingBlob(f"The upload of blob {self.ref} was let go of: begin it again.", "Call Begin again.")
            idle = bool(self._present[chunk]) if chunk is not None else 0 in self._present
            self._in_flight += not idle
            return not idle

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
