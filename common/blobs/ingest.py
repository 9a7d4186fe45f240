"""Taking a file into the store. The file may come from a process that is trusted less than this one, the training worker:
it could be a link to one of our keys, a pipe that never ends, or change while it is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.blobs import disk
from common.blobs.reference import CHUNK_BYTES, BlobRef, DigestName
from common.blobs.writer import BlobWriter, Install, LeafCounter
from common.errors import StorageFailure


@contextmanager
def open_plain_file(path: Path) -> Iterator[int]:
    """A file descriptor of a regular file, for reading; links are not followed.

    Raises:
        StorageFailure: it is not one, or cannot be opened.
    """
    with disk.storage("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StorageFailure(f"{path} is not a regular file.", "Name a file, not a folder, pipe or device.")
        yield fd
    finally:
        os.close(fd)


def is_ours_alone(fd: int, folder: Path) -> bool:
    """Whether this file may become a blob by renaming it: our user's, one name, on the store's file system."""
    found = os.fstat(fd)
    return found.st_uid == os.geteuid() and found.st_nlink == 1 and found.st_dev == folder.stat().st_dev


def copy_in(fd: int, writer: BlobWriter, source: Path) -> BlobRef:
    """Copy a whole file into a new blob."""
    with writer:
        for piece in _pieces(fd, source):
            writer.write(piece)
        return writer.commit()


def move_in(fd: int, source: Path, algorithm: DigestName, install: Install) -> BlobRef:
    """Make a file a blob by renaming it.

    A change between hashing and renaming would be found by the first reader, as any change on disk.
    """
    counter = LeafCounter(algorithm)
    for piece in _pieces(fd, source):
        counter.update(piece)
    ref, leaves = counter.result()
    with disk.storage("finish", source):
        os.fchmod(fd, disk.FILE_MODE)
        os.fsync(fd)
    install(source, ref, leaves)
    return ref


def _pieces(fd: int, source: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(CHUNK_BYTES))
    position = 0
    while True:
        with disk.storage("read", source):
            got = disk.read_at(fd, buffer, position)
        if got:
            yield buffer[:got]
        if got < len(buffer):
            return
        position += got
