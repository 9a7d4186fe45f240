"""Files of blobs that nobody reads any more, kept to be written over.

A new file's every page must be found, cleared and put into the page cache; in a file that is there the bytes only go over the
old ones. For large files that is several times cheaper (docs/performance.md). What a spare holds counts for nothing: it gets a
blob's name only after every chunk of it was written and verified.

    ROOT/spare/5d0c…      one file each, mode 0600
"""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path

from common.blobs import disk

MOST_SPARES = 256
"""A cohort's worth: each round takes as many as the round before it gave back."""


class Spares:
    """A folder of files to write over; any thread. A crash at any moment leaves files that are as good as before."""

    def __init__(self, folder: Path, most: int = MOST_SPARES) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()

    def keep(self, path: Path) -> None:
        """Take a file over, which then has no other name; where it has one already, or there are plenty, remove it.

        Raises:
            StorageFailure: the disk refuses.
        """
        with self._lock, disk.storage("keep", path):
            try:
                alone = path.stat().st_nlink == 1
            except FileNotFoundError:
                return
            if alone and len(self._sizes()) < self._most:
                disk.private_folder(self._folder)
                os.replace(path, self._folder / uuid.uuid4().hex)
            else:
                path.unlink(missing_ok=True)

    def take(self, size: int, to: Path) -> bool:
        """Give the file whose size is nearest away, under the name `to`; False where there is none.

        Raises:
            StorageFailure: the disk refuses.
        """
        with self._lock, disk.storage("reuse", to):
            sizes = self._sizes()
            if not sizes:
                return False
            os.replace(min(sizes, key=lambda path: abs(sizes[path] - size)), to)
            return True

    def total_bytes(self) -> int:
        """What all of them hold."""
        with self._lock:
            return sum(self._sizes().values())

    def drop(self) -> None:
        """Remove them all: their room is wanted, or nothing of what they held may stay.

        Raises:
            StorageFailure: the disk refuses.
        """
        with self._lock, disk.storage("empty", self._folder):
            for path in self._sizes():
                path.unlink(missing_ok=True)

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in sorted(self._folder.glob("*"))}
