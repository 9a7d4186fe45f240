"""Home folders on disk: private, locked by one process, written so that a crash leaves the old file or the new one.

home = private_folder(Path("/var/lib/llmasos/coordinator"))
with HomeLock(home):
    atomic_write(home / "addresses.json", b"{}")
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from common.errors import HomeLocked, StorageFailure


def private_folder(path: Path) -> Path:
    """Make `path` a folder that only its owner enters (0700), parents included where missing; return it.

    Raises:
        StorageFailure: it cannot be made, or is a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_mode & 0o777 != 0o700:
            path.chmod(0o700)  # mkdir's mode is cut by the umask, and an existing folder may be open to others
    except OSError as error:
        raise storage_failure(path, error) from error
    return path


def atomic_write(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace `path` by `data`, durably: readers and a crash see the old bytes or the new ones, never a part.

    Not `durable`: a process that dies leaves the old file or the new one, and a machine that loses power perhaps neither.

    Raises:
        StorageFailure: disk full, no permission; the old file is still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise storage_failure(path, error) from error


def sync_folder(path: Path) -> None:
    """Make renames and removals in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_failure(path: Path, error: OSError) -> StorageFailure:
    """An operating system's error as one of ours, with the path and its reason."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return StorageFailure(f"{path}: {reason}.")


class HomeLock:
    """Holds a home folder for one process; the kernel lets go when the process ends, however it ends.

    Raises on entry:
        HomeLocked: another process holds it; its id is named.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "lock"
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_failure(self._path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise HomeLocked(f"{self._path.parent} is in use by the process {holder}.") from error
            raise storage_failure(self._path, error) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # the file stays: removing it would let two processes hold two locks
            self._descriptor = None
