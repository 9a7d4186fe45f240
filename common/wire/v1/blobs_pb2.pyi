from common.wire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FindBulkRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FindBulkResponse(_message.Message):
    __slots__ = ("port",)
    PORT_FIELD_NUMBER: _ClassVar[int]
    port: int
    def __init__(self, port: _Optional[int] = ...) -> None: ...

class Purpose(_message.Message):
    __slots__ = ("round_opened", "plan", "recovery")
    ROUND_OPENED_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_FIELD_NUMBER: _ClassVar[int]
    round_opened: bytes
    plan: str
    recovery: bool
    def __init__(self, round_opened: _Optional[bytes] = ..., plan: _Optional[str] = ..., recovery: _Optional[bool] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("ref", "leaves", "purpose")
    REF_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.BlobRef
    leaves: _common_pb2.LeafList
    purpose: Purpose
    def __init__(self, ref: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., leaves: _Optional[_Union[_common_pb2.LeafList, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, _Mapping]] = ...) -> None: ...

class BeginResponse(_message.Message):
    __slots__ = ("missing", "piece_bytes")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    PIECE_BYTES_FIELD_NUMBER: _ClassVar[int]
    missing: _containers.RepeatedCompositeFieldContainer[ChunkRange]
    piece_bytes: int
    def __init__(self, missing: _Optional[_Iterable[_Union[ChunkRange, _Mapping]]] = ..., piece_bytes: _Optional[int] = ...) -> None: ...

class ChunkRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("ref", "purpose", "piece")
    REF_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.BlobRef
    purpose: Purpose
    piece: _common_pb2.ChunkPiece
    def __init__(self, ref: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., purpose: _Optional[_Union[Purpose, _Mapping]] = ..., piece: _Optional[_Union[_common_pb2.ChunkPiece, _Mapping]] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("chunks_stored", "complete")
    CHUNKS_STORED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    chunks_stored: int
    complete: bool
    def __init__(self, chunks_stored: _Optional[int] = ..., complete: _Optional[bool] = ...) -> None: ...

class LeavesRequest(_message.Message):
    __slots__ = ("ref",)
    REF_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.BlobRef
    def __init__(self, ref: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("ref", "first_chunk", "chunks", "verify", "most_piece_bytes")
    REF_FIELD_NUMBER: _ClassVar[int]
    FIRST_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    MOST_PIECE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.BlobRef
    first_chunk: int
    chunks: int
    verify: bool
    most_piece_bytes: int
    def __init__(self, ref: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., first_chunk: _Optional[int] = ..., chunks: _Optional[int] = ..., verify: _Optional[bool] = ..., most_piece_bytes: _Optional[int] = ...) -> None: ...
