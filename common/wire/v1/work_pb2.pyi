from common.wire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FollowRequest(_message.Message):
    __slots__ = ("from_index", "wait_milliseconds")
    FROM_INDEX_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    from_index: int
    wait_milliseconds: int
    def __init__(self, from_index: _Optional[int] = ..., wait_milliseconds: _Optional[int] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("entries", "ledger_size", "inquiries")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SIZE_FIELD_NUMBER: _ClassVar[int]
    INQUIRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.LedgerEntry]
    ledger_size: int
    inquiries: _containers.RepeatedCompositeFieldContainer[Inquiry]
    def __init__(self, entries: _Optional[_Iterable[_Union[_common_pb2.LedgerEntry, _Mapping]]] = ..., ledger_size: _Optional[int] = ..., inquiries: _Optional[_Iterable[_Union[Inquiry, _Mapping]]] = ...) -> None: ...

class Inquiry(_message.Message):
    __slots__ = ("id", "plan_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    plan_json: bytes
    def __init__(self, id: _Optional[bytes] = ..., plan_json: _Optional[bytes] = ...) -> None: ...

class EstimateRequest(_message.Message):
    __slots__ = ("id", "verdict", "codes", "seconds_per_round", "availability")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_ROUND_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    verdict: str
    codes: _containers.RepeatedScalarFieldContainer[str]
    seconds_per_round: float
    availability: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[bytes] = ..., verdict: _Optional[str] = ..., codes: _Optional[_Iterable[str]] = ..., seconds_per_round: _Optional[float] = ..., availability: _Optional[_Iterable[str]] = ...) -> None: ...

class EstimateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("envelope", "metrics", "metrics_salt")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METRICS_SALT_FIELD_NUMBER: _ClassVar[int]
    envelope: _common_pb2.Envelope
    metrics: bytes
    metrics_salt: bytes
    def __init__(self, envelope: _Optional[_Union[_common_pb2.Envelope, _Mapping]] = ..., metrics: _Optional[bytes] = ..., metrics_salt: _Optional[bytes] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("run", "round", "activity", "steps_done", "steps_total", "tokens_done", "bytes_down", "bytes_up", "loss_fixed", "available_at")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIXED_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_AT_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    activity: str
    steps_done: int
    steps_total: int
    tokens_done: int
    bytes_down: int
    bytes_up: int
    loss_fixed: int
    available_at: str
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., activity: _Optional[str] = ..., steps_done: _Optional[int] = ..., steps_total: _Optional[int] = ..., tokens_done: _Optional[int] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., loss_fixed: _Optional[int] = ..., available_at: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("round_open",)
    ROUND_OPEN_FIELD_NUMBER: _ClassVar[int]
    round_open: bool
    def __init__(self, round_open: _Optional[bool] = ...) -> None: ...
