"""Small things about files that the blob store and its readers share: whole reads and writes, durability, private folders."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StorageFailure
from common.homes import sync_folder

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


@contextmanager
def storage(action: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors inside into one that names the file.

    Raises:
        StorageFailure: disk full, no permission, read error.
    """
    try:
        yield
    except OSError as err:
        raise StorageFailure(f"Could not {action} {path}: {err.strerror or err}.") from err


def read_at(fd: int, into: memoryview, offset: int) -> int:
    """Fill `into` from `offset` of a file; how many bytes came, less than asked for only at the file's end."""
    done = 0
    while done < len(into):
        count = os.preadv(fd, [into[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of a file."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)


def start_writing_back(fd: int, offset: int, count: int) -> None:
    """Have the disk begin with what was just written, where the system knows how: the sync at the end waits for less.

    Promises nothing and reports nothing; a write that fails is reported by the `fsync` that follows.
    """
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def private_folder(folder: Path) -> Path:
    """Make a folder, and those above it, readable by this user only; existing ones stay as they are. Durable."""
    if folder.is_dir():
        return folder
    private_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    sync_folder(folder.parent)
    return folder


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a private file whole and make its content durable; its name is durable once its folder is synced."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        write_at(fd, memoryview(data), 0)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
