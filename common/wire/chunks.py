"""Chunks as pieces on the wire: cut on one side, written as they come on the other; no chunk is put together in memory."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import MalformedMessage, TruncatedChunk
from common.wire.channel import MESSAGE_BYTES
from common.wire.messages import Piece


def pieces(chunk: int, content: memoryview, *, piece_bytes: int = MESSAGE_BYTES) -> Iterator[Piece]:
    """`content` of chunk `chunk`, in order and without gaps; each is valid as long as `content` is."""
    for offset in range(0, len(content), piece_bytes):
        yield Piece(chunk=chunk, offset=offset, data=content[offset : offset + piece_bytes])


class SentBlob(Protocol):
    """A blob on its way out: common.blobs.reader.BlobReader is one."""

    @property
    def ref(self) -> BlobRef: ...

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        """The verified bytes of a chunk, as the first part of `into`."""
        ...

    def read_unverified(self, position: int, into: memoryview) -> None:
        """Fill `into` from that byte on."""
        ...


class ChunkSender:
    """Cuts chunks of one blob into pieces, in one buffer: of a piece, or of a chunk where chunks are verified first."""

    def __init__(self, blob: SentBlob) -> None:
        self._blob = blob
        self._buffer = memoryview(b"")

    def pieces(self, chunk: int, *, verify: bool, piece_bytes: int = MESSAGE_BYTES) -> Iterator[Piece]:
        """The pieces of a chunk, in order; each is valid until the next.

        Args:
            piece_bytes: of each but the last.
            verify: check the chunk before the first piece; who receives checks it in any case.

        Raises:
            CorruptChunk: it is not what its leaf names; where nothing is verified, only if the file ends early.
            StorageFailure: the disk cannot be read.
        """
        ref = self._blob.ref
        if verify:
            content = self._blob.read_chunk(chunk, self._room(min(ref.size, CHUNK_BYTES)))
            yield from pieces(chunk, content, piece_bytes=piece_bytes)
            return
        size = ref.chunk_size(chunk)
        room = self._room(min(ref.size, piece_bytes))
        for offset in range(0, size, piece_bytes):
            part = room[: min(piece_bytes, size - offset)]
            self._blob.read_unverified(chunk * CHUNK_BYTES + offset, part)
            yield Piece(chunk=chunk, offset=offset, data=part)

    def _room(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer


class ChunkSink(Protocol):
    """One chunk on its way in: common.blobs.incoming.IncomingChunk is one."""

    def write(self, data: bytes | memoryview) -> None:
        """The chunk's next bytes."""
        ...

    def finish(self) -> None:
        """
        Raises:
            CorruptChunk: these were not the bytes that the leaf names.
        """
        ...

    def abandon(self) -> None:
        """The rest will not come."""
        ...


class BlobSink(Protocol):
    """A blob on its way in: common.blobs.upload.Upload and common.blobs.proof.Proof are."""

    @property
    def ref(self) -> BlobRef: ...

    def incoming(self, chunk: int) -> ChunkSink: ...


class ChunkReceiver:
    """Takes the pieces of one stream: bounds first, then they go where the blob grows. Leave it by its `with` block.

    A chunk's pieces come one after another, without gaps; chunks come in any order.
    """

    def __init__(self, blob: BlobSink) -> None:
        self._blob = blob
        self._ref = blob.ref
        self._chunk = self._filled = 0
        self._sink: ChunkSink | None = None

    def add(self, piece: Piece) -> int | None:
        """The size of the chunk that this piece finished, verified and written; None while bytes of it are missing.

        Raises:
            MalformedMessage: the blob has no such chunk.
            TruncatedChunk: the piece is not the next one, or goes beyond the chunk's end.
            CorruptChunk: the chunk's bytes are not those that the leaf names.
            MissingBlob: the upload was discarded or let go of.
            StorageFailure: the disk refuses.
        """
        if piece.chunk >= self._ref.chunks:
            raise MalformedMessage(
                f"ChunkPiece.chunk: expected below {self._ref.chunks:,} for {self._ref}, got {piece.chunk:,}."
            )
        if self._sink is None:
            self._chunk = piece.chunk
        end, size = piece.offset + len(piece.data), self._ref.chunk_size(self._chunk)
        if piece.chunk != self._chunk or piece.offset != self._filled or end > size:
            raise TruncatedChunk(
                f"Chunk {self._chunk:,} of {self._ref}: expected bytes {self._filled:,} to at most {size:,} of it, "
                f"got {piece.offset:,} to {end:,} of chunk {piece.chunk:,}."
            )
        if self._sink is None:
            self._sink = self._blob.incoming(self._chunk)
        self._sink.write(piece.data)
        self._filled = end
        if end < size:
            return None
        sink, self._sink, self._filled = self._sink, None, 0
        sink.finish()
        return size

    def finish(self) -> None:
        """Says that the stream has ended.

        Raises:
            TruncatedChunk: in the middle of a chunk.
        """
        if self._sink is not None:
            size = self._ref.chunk_size(self._chunk)
            raise TruncatedChunk(
                f"Chunk {self._chunk:,} of {self._ref}: expected {size:,} bytes, the stream ended after {self._filled:,}."
            )

    def __enter__(self) -> ChunkReceiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.abandon()
