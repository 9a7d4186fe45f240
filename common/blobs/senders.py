"""Who sent which blob with its own bytes: an empty file for each, so that it survives a restart.

ROOT/OWNER/blake3-3f9a…
"""

from __future__ import annotations

from pathlib import Path

from common.blobs import disk
from common.blobs.reference import BlobRef
from common.names import check_name


class Senders:
    """Marks in a folder, which is made with the first one; any thread."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, owner: str, ref: BlobRef) -> None:
        """Outlives this process. Not synced: after a power failure the owner is asked for its bytes once more."""
        mark = self._mark(owner, ref)
        with disk.storage("write", mark):
            if not mark.exists():
                disk.private_folder(mark.parent)
                disk.write_file(mark, b"", durable=False)

    def has(self, owner: str, ref: BlobRef) -> bool:
        """
        Raises:
            InvalidName: the owner's name.
        """
        return self._mark(owner, ref).exists()

    def forget(self, ref: BlobRef) -> None:
        """Every mark of a blob that is gone."""
        with disk.storage("empty", self._root):
            for mark in self._root.glob(f"*/{ref.algorithm}-{ref.root}"):
                mark.unlink(missing_ok=True)

    def _mark(self, owner: str, ref: BlobRef) -> Path:
        return self._root / check_name(owner) / f"{ref.algorithm}-{ref.root}"
