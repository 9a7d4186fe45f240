"""A store in a temporary folder, and a content of three chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from tests.support.blobs import leaves_and_ref


@dataclass(frozen=True)
class Content:
    """Bytes with their reference and leaf list."""

    data: bytes
    ref: BlobRef
    leaves: bytes

    def chunk(self, index: int) -> bytes:
        return self.data[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FolderBlobStore]:
    opened = FolderBlobStore(tmp_path / "blobs")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def content() -> Content:
    data = np.random.default_rng(7).bytes(2 * CHUNK_BYTES + 1000)
    leaves, ref = leaves_and_ref(data)
    return Content(data, ref, leaves)
