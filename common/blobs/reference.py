"""A blob's name: algorithm, size and Merkle root over 4 MiB chunks (docs/protocol.md#blobs)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from common.names import Sha256Hex

CHUNK_BYTES = 4 * 1024 * 1024
MAX_BLOB_BYTES = 2**44

DigestName = Literal["blake3", "sha256"]


class BlobRef(BaseModel):
    """Names content. `root` is the RFC 6962 tree head over the chunks, 32 bytes as hexadecimal digits."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: DigestName
    size: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    root: Sha256Hex

    @property
    def chunks(self) -> int:
        """How many chunks the blob has."""
        return -(-self.size // CHUNK_BYTES)

    def chunk_size(self, index: int) -> int:
        """Bytes of chunk `index`; all but the last have CHUNK_BYTES.

        Raises:
            IndexError: the blob has no such chunk.
        """
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of a blob of {self.chunks} chunks")
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.root[:16]}… ({self.size:,} bytes)"
