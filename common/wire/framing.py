"""Pieces of chunks in protobuf's bytes, put together and taken apart without the copies that protobuf's objects need.

The messages are those of blobs.proto, byte for byte: whoever generates code from it reads and writes the same. Only the usual
form of a piece is handled here, its fields once each and in ascending order; every other message goes through protobuf.

    ChunkPiece    08 chunk · 10 offset · 1a length data          a number that is zero is left out
    PutRequest    1a length ChunkPiece

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Any

import grpc

from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2, blobs_pb2_grpc, common_pb2

SERVICE = "llmasos.v1.Blobs"
_CHUNK, _OFFSET, _DATA, _PIECE = b"\x08", b"\x10", b"\x1a", b"\x1a"
_MOST_VARINT_BYTES = 5
"""Of 32 bits."""
_UINT32 = 2**32


def frame_piece(piece: Piece) -> bytes:
    """A ChunkPiece message: one copy of the data."""
    return b"".join(piece_parts(piece))


def frame_put(message: Piece | blobs_pb2.PutRequest) -> bytes:
    """A PutRequest message: a piece, or whatever else it holds."""
    return b"".join(put_parts(message))


def piece_parts(piece: Piece) -> tuple[bytes, bytes | memoryview]:
    """A ChunkPiece message in two parts, the second its data: no copy."""
    return _head(piece), piece.data


def put_parts(message: Piece | blobs_pb2.PutRequest) -> tuple[bytes, bytes | memoryview]:
    """A PutRequest message as `piece_parts`; one without a piece is all in the first part."""
    if not isinstance(message, Piece):
        return message.SerializeToString(), b""
    head = _head(message)
    return b"".join((_PIECE, _varint(len(head) + len(message.data)), head)), message.data


def unframe_piece(content: bytes | memoryview) -> Piece | common_pb2.ChunkPiece:
    """A ChunkPiece message; of the usual form without a copy of its data, which is valid as long as `content` is.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    piece = _piece(memoryview(content))
    return piece if piece is not None else common_pb2.ChunkPiece.FromString(bytes(content))


def unframe_put(content: bytes | memoryview) -> Piece | blobs_pb2.PutRequest:
    """A PutRequest message; one with a piece of the usual form without a copy of its data.

    Raises:
        google.protobuf.message.DecodeError: it is none.
    """
    view = memoryview(content)
    if view[:1] == _PIECE:
        length, at = _read_varint(view, 1)
        if length == len(view) - at:
            piece = _piece(view[at:])
            if piece is not None:
                return piece
    return blobs_pb2.PutRequest.FromString(bytes(content))


def blobs_stub(channel: Any) -> Any:
    """The generated stub of the Blobs service, with pieces carried as above: Put takes Piece, Get gives it."""
    stub = blobs_pb2_grpc.BlobsStub(channel)
    stub.Put = channel.stream_unary(
        f"/{SERVICE}/Put",
        request_serializer=frame_put,
        response_deserializer=blobs_pb2.PutResponse.FromString,
    )
    stub.Get = channel.unary_stream(
        f"/{SERVICE}/Get",
        request_serializer=blobs_pb2.GetRequest.SerializeToString,
        response_deserializer=unframe_piece,
    )
    return stub


def _head(piece: Piece) -> bytes:
    chunk = _CHUNK + _varint(piece.chunk) if piece.chunk else b""
    offset = _OFFSET + _varint(piece.offset) if piece.offset else b""
    return b"".join((chunk, offset, _DATA, _varint(len(piece.data))))


def _piece(view: memoryview) -> Piece | None:
    """None where the message has another form."""
    chunk = offset = at = 0
    if view[at : at + 1] == _CHUNK:
        chunk, at = _read_varint(view, at + 1)
    if view[at : at + 1] == _OFFSET:
        offset, at = _read_varint(view, at + 1)
    if view[at : at + 1] != _DATA:
        return None
    length, at = _read_varint(view, at + 1)
    usual = length == len(view) - at and 0 <= chunk < _UINT32 and 0 <= offset < _UINT32
    return Piece(chunk, offset, view[at:]) if usual else None


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number there and the position after it; -1 where it is none of at most five bytes."""
    value = 0
    for position in range(_MOST_VARINT_BYTES):
        if at + position >= len(view):
            return -1, at
        byte = view[at + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at + position + 1
    return -1, at


def add_blobs_to_server(servicer: Any, server: Any) -> None:
    """As the generated function does it, with pieces carried as above: Put gets Piece after its first message, Get gives it."""
    handlers = {
        "Begin": grpc.unary_unary_rpc_method_handler(
            servicer.Begin,
            request_deserializer=blobs_pb2.BeginRequest.FromString,
            response_serializer=blobs_pb2.BeginResponse.SerializeToString,
        ),
        "Put": grpc.stream_unary_rpc_method_handler(
            servicer.Put,
            request_deserializer=unframe_put,
            response_serializer=blobs_pb2.PutResponse.SerializeToString,
        ),
        "Leaves": grpc.unary_unary_rpc_method_handler(
            servicer.Leaves,
            request_deserializer=blobs_pb2.LeavesRequest.FromString,
            response_serializer=common_pb2.LeafList.SerializeToString,
        ),
        "Get": grpc.unary_stream_rpc_method_handler(
            servicer.Get,
            request_deserializer=blobs_pb2.GetRequest.FromString,
            response_serializer=frame_piece,
        ),
        "FindBulk": grpc.unary_unary_rpc_method_handler(
            servicer.FindBulk,
            request_deserializer=blobs_pb2.FindBulkRequest.FromString,
            response_serializer=blobs_pb2.FindBulkResponse.SerializeToString,
        ),
    }
    server.add_registered_method_handlers(SERVICE, handlers)
