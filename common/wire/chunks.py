"""Chunks as pieces on the wire: cut on one side, put together on the other, with one buffer a stream."""

from __future__ import annotations

from collections.abc import Iterator

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.errors import MalformedMessage, TruncatedChunk
from common.wire.channel import MESSAGE_BYTES
from common.wire.messages import Piece


def pieces(chunk: int, content: memoryview, *, piece_bytes: int = MESSAGE_BYTES) -> Iterator[Piece]:
    """`content` of chunk `chunk`, in order and without gaps."""
    for offset in range(0, len(content), piece_bytes):
        yield Piece(chunk=chunk, offset=offset, data=bytes(content[offset : offset + piece_bytes]))


class ChunkAssembler:
    """Puts pieces of one stream together: bounds first, then one copy into the stream's only buffer.

    The buffer is made at the first piece, so that a stream that sends nothing holds nothing.
    """

    def __init__(self, ref: BlobRef) -> None:
        self._ref = ref
        self._buffer = memoryview(b"")
        self._chunk = 0
        self._filled = 0

    def add(self, piece: Piece) -> tuple[int, memoryview] | None:
        """The finished chunk, valid until the next call; None while bytes of it are missing.

        Raises:
            MalformedMessage: the blob has no such chunk.
            TruncatedChunk: the piece is not the next one, or goes beyond the chunk's end.
        """
        if piece.chunk >= self._ref.chunks:
            raise MalformedMessage(
                f"ChunkPiece.chunk: expected below {self._ref.chunks:,} for {self._ref}, got {piece.chunk:,}."
            )
        if self._filled == 0:
            self._chunk = piece.chunk
        end = piece.offset + len(piece.data)
        size = self._ref.chunk_size(self._chunk)
        if piece.chunk != self._chunk or piece.offset != self._filled or end > size:
            raise TruncatedChunk(
                f"Chunk {self._chunk:,} of {self._ref}: expected bytes {self._filled:,} to at most {size:,} of it, "
                f"got {piece.offset:,} to {end:,} of chunk {piece.chunk:,}."
            )
        if not self._buffer:
            self._buffer = chunk_buffer(self._ref)
        self._buffer[piece.offset : end] = piece.data
        self._filled = end if end < size else 0
        return None if end < size else (piece.chunk, self._buffer[:size])

    def finish(self) -> None:
        """Says that the stream has ended.

        Raises:
            TruncatedChunk: in the middle of a chunk.
        """
        if self._filled:
            size = self._ref.chunk_size(self._chunk)
            raise TruncatedChunk(
                f"Chunk {self._chunk:,} of {self._ref}: expected {size:,} bytes, the stream ended after {self._filled:,}."
            )
