"""A file on disk read as a blob, without taking it into a store: hashed once, then verified as it is read."""

from __future__ import annotations

from pathlib import Path

from common.blobs import disk
from common.blobs.reader import BlobReader
from common.blobs.reference import CHUNK_BYTES, DigestName
from common.blobs.writer import LeafCounter


def open_as_blob(path: Path, algorithm: DigestName) -> BlobReader:
    """A reader over the file; its `ref` is what the file holds now. A change while it is read is a CorruptChunk.

    Raises:
        StorageFailure: the file cannot be read.
    """
    counter = LeafCounter(algorithm)
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with disk.storage("read", path), path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            counter.update(buffer[:count])
    ref, leaves = counter.result()
    return BlobReader(path, ref, leaves)
