from __future__ import annotations

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import MalformedMessage, TruncatedChunk
from common.wire.chunks import ChunkReceiver, pieces
from common.wire.messages import Piece

REF = BlobRef(algorithm="blake3", size=CHUNK_BYTES + 10, root="00" * 32)


class Sink:
    """Remembers what came of each chunk, and how it ended."""

    def __init__(self, blob: Blob, chunk: int) -> None:
        self._blob, self._chunk = blob, chunk
        self._content = b""

    def write(self, data: bytes | memoryview) -> None:
        self._content += bytes(data)

    def finish(self) -> None:
        self._blob.finished.append((self._chunk, self._content))

    def abandon(self) -> None:
        self._blob.abandoned.append(self._chunk)


class Blob:
    def __init__(self, ref: BlobRef = REF) -> None:
        self.ref = ref
        self.finished: list[tuple[int, bytes]] = []
        self.abandoned: list[int] = []

    def incoming(self, chunk: int) -> Sink:
        return Sink(self, chunk)


def test_a_chunk_cut_in_pieces_comes_together_again() -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 256)
    blob = Blob()
    with ChunkReceiver(blob) as receiver:
        sizes = [receiver.add(piece) for piece in pieces(0, memoryview(content))]
        receiver.finish()
    assert sizes == [None] * (len(sizes) - 1) + [CHUNK_BYTES]
    assert blob.finished == [(0, content)]
    assert blob.abandoned == []


def test_chunks_may_come_in_any_order() -> None:
    blob = Blob()
    receiver = ChunkReceiver(blob)
    assert receiver.add(Piece(1, 0, b"0123456789")) == 10
    assert receiver.add(Piece(0, 0, b"x")) is None
    assert blob.finished == [(1, b"0123456789")]


def test_a_stream_that_breaks_gives_its_chunk_up() -> None:
    blob = Blob()
    with ChunkReceiver(blob) as receiver:
        receiver.add(Piece(0, 0, b"x"))
    assert blob.abandoned == [0]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (None, Piece(0, 1, b"x"), r"expected bytes 0 to at most 4,194,304 of it, got 1 to 2 of chunk 0\."),
        (
            Piece(0, 0, b"ab"),
            Piece(0, 3, b"c"),
            r"expected bytes 2 to at most 4,194,304 of it, got 3 to 4 of chunk 0\.",
        ),
        (
            Piece(0, 0, b"ab"),
            Piece(0, 1, b"c"),
            r"expected bytes 2 to at most 4,194,304 of it, got 1 to 2 of chunk 0\.",
        ),
        (
            Piece(0, 0, b"ab"),
            Piece(1, 0, b"c"),
            r"expected bytes 2 to at most 4,194,304 of it, got 0 to 1 of chunk 1\.",
        ),
        (None, Piece(1, 0, b"01234567890"), r"expected bytes 0 to at most 10 of it, got 0 to 11 of chunk 1\."),
    ],
)
def test_a_piece_that_is_not_the_next_is_refused(first: Piece | None, second: Piece, message: str) -> None:
    receiver = ChunkReceiver(Blob())
    if first is not None:
        receiver.add(first)
    with pytest.raises(TruncatedChunk, match=message):
        receiver.add(second)


def test_a_chunk_that_the_blob_has_not_is_refused() -> None:
    with pytest.raises(MalformedMessage, match=r"ChunkPiece.chunk: expected below 2 for blake3:0+… .*, got 2\."):
        ChunkReceiver(Blob()).add(Piece(2, 0, b"x"))


def test_a_stream_that_ends_in_a_chunk_is_refused() -> None:
    receiver = ChunkReceiver(Blob())
    receiver.add(Piece(1, 0, b"012"))
    with pytest.raises(TruncatedChunk, match=r"Chunk 1 of .*: expected 10 bytes, the stream ended after 3\."):
        receiver.finish()


def test_an_empty_blob_has_no_pieces() -> None:
    empty = BlobRef(algorithm="blake3", size=0, root="00" * 32)
    ChunkReceiver(Blob(empty)).finish()
    with pytest.raises(MalformedMessage, match=r"ChunkPiece.chunk: expected below 0"):
        ChunkReceiver(Blob(empty)).add(Piece(0, 0, b"x"))
