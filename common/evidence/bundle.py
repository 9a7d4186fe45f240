"""What was read from a bundle: values, and windows into the file where there is too much of it for memory.

with read_bundle(path) as bundle:
    report = verify(Material(bundle.envelopes, bundle.blobs, fingerprint, {}, tree=bundle.tree, …))
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import overload

from common.blobs import disk
from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.errors import LedgerConflict, MissingBlob
from common.evidence.format import Contents, Measured
from common.evidence.subtrees import SparseNodes
from common.ledger.merkle import leaf_hash
from common.ledger.tree import StoredTree


class Envelopes(Sequence[bytes | None]):
    """All entries in order, None where one is withheld; each read from the file when it is asked for.

    Raises on access:
        LedgerConflict: the file was changed since it was parsed.
        StorageFailure: it cannot be read.
    """

    def __init__(self, path: Path, fd: int, nodes: SparseNodes) -> None:
        self._path = path
        self._fd = fd
        self._nodes = nodes
        self._offsets = array("Q")
        self._sizes = array("I")

    def add(self, offset: int, size: int) -> None:
        """Where the entry lies whose leaf was just added to the nodes."""
        self._offsets.append(offset)
        self._sizes.append(size)

    def __len__(self) -> int:
        return self._nodes.places.size

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        found = range(len(self))[index]
        return _Window(self, found) if isinstance(found, range) else self._read(found)

    def _read(self, index: int) -> bytes | None:
        rank = self._nodes.places.rank(index)
        if rank is None:
            return None
        with disk.storage("read", self._path):
            envelope = os.pread(self._fd, self._sizes[rank], self._offsets[rank])
        if leaf_hash(hashlib.sha256, envelope) != self._nodes.leaf(rank):
            raise LedgerConflict(f"Entry {index} of {self._path} was changed while the file was being read.")
        return envelope


class _Window(Sequence[bytes | None]):
    """A slice that copies nothing."""

    def __init__(self, envelopes: Envelopes, indexes: range) -> None:
        self._envelopes = envelopes
        self._indexes = indexes

    def __len__(self) -> int:
        return len(self._indexes)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        found = self._indexes[index]
        return _Window(self._envelopes, found) if isinstance(found, range) else self._envelopes[found]


class BundledBlobs:
    """Blobs that lie in the file; their leaf lists were computed when it was parsed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[BlobRef, tuple[int, bytes]] = {}

    def add(self, ref: BlobRef, offset: int, leaves: bytes) -> None:
        """Where a blob lies, and its leaf list."""
        self._places[ref] = offset, leaves

    @property
    def refs(self) -> tuple[BlobRef, ...]:
        """All of them, in the file's order."""
        return tuple(self._places)

    def contains(self, ref: BlobRef) -> bool:
        return ref in self._places

    def open(self, ref: BlobRef) -> BlobReader:
        """A reader that verifies each chunk again; close it.

        Raises:
            MissingBlob: the bundle does not hold it.
        """
        if ref not in self._places:
            raise MissingBlob(f"Blob {ref} is not in {self._path}.")
        offset, leaves = self._places[ref]
        return BlobReader(self._path, ref, leaves, offset=offset)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in its one form, of which nothing is believed before it was verified; close it."""

    fd: int
    digest: str
    checkpoints: Sequence[bytes]
    conflicting: Sequence[bytes]
    envelopes: Envelopes
    nodes: SparseNodes
    metrics: Mapping[str, Measured]
    blobs: BundledBlobs

    @property
    def tree(self) -> StoredTree:
        """Over all entries; the heads of all notes' sizes can be asked for, others where nothing is withheld."""
        return StoredTree(hashlib.sha256, self.nodes, len(self.envelopes))

    def contents(self) -> Contents:
        """What `write_bundle` makes the very same bytes of."""
        return Contents(
            checkpoints=self.checkpoints,
            conflicting=self.conflicting,
            envelopes=self.envelopes,
            nodes=self.nodes,
            metrics=tuple(self.metrics.values()),
            blobs=self.blobs.refs,
            source=self.blobs,
        )

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
