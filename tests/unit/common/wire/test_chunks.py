from __future__ import annotations

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.errors import MalformedMessage, TruncatedChunk
from common.wire.chunks import ChunkAssembler, pieces
from common.wire.messages import Piece

REF = BlobRef(algorithm="blake3", size=CHUNK_BYTES + 10, root="00" * 32)


def test_a_chunk_cut_in_pieces_comes_together_again() -> None:
    content = bytes(range(256)) * (CHUNK_BYTES // 256)
    assembler, finished = ChunkAssembler(REF), []
    for piece in pieces(0, memoryview(content)):
        if (chunk := assembler.add(piece)) is not None:
            finished.append((chunk[0], bytes(chunk[1])))
    assert finished == [(0, content)]


def test_chunks_may_come_in_any_order() -> None:
    assembler = ChunkAssembler(REF)
    last = assembler.add(Piece(1, 0, b"0123456789"))
    assert last is not None
    assert bytes(last[1]) == b"0123456789"
    assert assembler.add(Piece(0, 0, b"x")) is None


def test_the_buffer_is_one_and_made_at_the_first_piece() -> None:
    assembler = ChunkAssembler(REF)
    assembler.finish()
    first, second = assembler.add(Piece(1, 0, b"0123456789")), assembler.add(Piece(1, 0, b"abcdefghij"))
    assert first is not None
    assert second is not None
    assert first[1].obj is second[1].obj
    assert len(bytes(first[1].obj)) == CHUNK_BYTES


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
    assembler = ChunkAssembler(REF)
    if first is not None:
        assembler.add(first)
    with pytest.raises(TruncatedChunk, match=message):
        assembler.add(second)


def test_a_chunk_that_the_blob_has_not_is_refused() -> None:
    with pytest.raises(MalformedMessage, match=r"ChunkPiece.chunk: expected below 2 for blake3:0+… .*, got 2\."):
        ChunkAssembler(REF).add(Piece(2, 0, b"x"))


def test_a_stream_that_ends_in_a_chunk_is_refused() -> None:
    assembler = ChunkAssembler(REF)
    assembler.add(Piece(1, 0, b"012"))
    with pytest.raises(TruncatedChunk, match=r"Chunk 1 of .*: expected 10 bytes, the stream ended after 3\."):
        assembler.finish()


def test_an_empty_blob_has_no_pieces() -> None:
    empty = BlobRef(algorithm="blake3", size=0, root="00" * 32)
    ChunkAssembler(empty).finish()
    with pytest.raises(MalformedMessage, match=r"ChunkPiece.chunk: expected below 0"):
        ChunkAssembler(empty).add(Piece(0, 0, b"x"))
