"""Framing by hand gives protobuf's very bytes, and reads what protobuf reads."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from common.wire import convert
from common.wire.framing import frame_piece, frame_put, unframe_piece, unframe_put
from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2, common_pb2

PIECES = st.builds(Piece, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=0, max_size=300))


@given(PIECES)
def test_a_framed_piece_is_protobufs(piece: Piece) -> None:
    expected = common_pb2.ChunkPiece(chunk=piece.chunk, offset=piece.offset, data=piece.data)
    if piece.data:  # an empty one is left out by protobuf; nobody sends it, and it is refused
        assert frame_piece(piece) == expected.SerializeToString()
        assert frame_put(piece) == blobs_pb2.PutRequest(piece=expected).SerializeToString()


@given(PIECES)
def test_protobufs_bytes_are_read(piece: Piece) -> None:
    message = convert.piece_to_wire(piece)
    assert _as_wire(unframe_piece(message.SerializeToString())) == message
    put = blobs_pb2.PutRequest(piece=message)
    assert _put_as_wire(unframe_put(put.SerializeToString())) == put


def test_a_usual_piece_is_not_copied() -> None:
    content = frame_put(Piece(7, 3, b"data"))
    piece = unframe_put(content)
    assert isinstance(piece, Piece)
    assert isinstance(piece.data, memoryview)
    assert piece.data.obj is content


def test_a_header_goes_through_protobuf() -> None:
    header = blobs_pb2.PutRequest(ref=common_pb2.BlobRef(algorithm="blake3", size=3))
    assert frame_put(header) == header.SerializeToString()
    assert unframe_put(frame_put(header)) == header


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda *parts: b"".join(parts),
        *[
            st.sampled_from(
                [
                    b"\x08\x05",
                    b"\x10\x01",
                    b"\x1a\x02ab",
                    b"\x1a\x04\x1a\x02ab",
                    b"\x1a\xff\xff\xff\xff\xff\x0f",
                    b"\x08\x80\x00",
                    b"",
                ]
            )
        ]
        * 4,
    )
)
def test_whatever_comes_means_what_it_means_to_protobuf(content: bytes) -> None:
    _same(content, common_pb2.ChunkPiece, lambda: _as_wire(unframe_piece(content)))
    _same(content, blobs_pb2.PutRequest, lambda: _put_as_wire(unframe_put(content)))


def _same(content: bytes, kind: Any, read: Any) -> None:
    try:
        expected = kind.FromString(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            read()
        return
    assert read() == expected


def _as_wire(message: Piece | common_pb2.ChunkPiece) -> common_pb2.ChunkPiece:
    return convert.piece_to_wire(message) if isinstance(message, Piece) else message


def _put_as_wire(message: Piece | blobs_pb2.PutRequest) -> blobs_pb2.PutRequest:
    return blobs_pb2.PutRequest(piece=convert.piece_to_wire(message)) if isinstance(message, Piece) else message
