from common.wire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FollowRequest(_message.Message):
    __slots__ = ("from_index", "wait_milliseconds", "cosignature", "cosigned_size", "seen_size", "lineage")
    FROM_INDEX_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    from_index: int
    wait_milliseconds: int
    cosignature: Cosignature
    cosigned_size: int
    seen_size: int
    lineage: int
    def __init__(self, from_index: _Optional[int] = ..., wait_milliseconds: _Optional[int] = ..., cosignature: _Optional[_Union[Cosignature, _Mapping]] = ..., cosigned_size: _Optional[int] = ..., seen_size: _Optional[int] = ..., lineage: _Optional[int] = ...) -> None: ...

class Cosignature(_message.Message):
    __slots__ = ("size", "signature")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    size: int
    signature: bytes
    def __init__(self, size: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("entries", "ledger_size", "inquiries", "checkpoint", "cosigned", "open_proposals")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SIZE_FIELD_NUMBER: _ClassVar[int]
    INQUIRIES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    OPEN_PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.LedgerEntry]
    ledger_size: int
    inquiries: _containers.RepeatedCompositeFieldContainer[Inquiry]
    checkpoint: bytes
    cosigned: _containers.RepeatedScalarFieldContainer[bytes]
    open_proposals: int
    def __init__(self, entries: _Optional[_Iterable[_Union[_common_pb2.LedgerEntry, _Mapping]]] = ..., ledger_size: _Optional[int] = ..., inquiries: _Optional[_Iterable[_Union[Inquiry, _Mapping]]] = ..., checkpoint: _Optional[bytes] = ..., cosigned: _Optional[_Iterable[bytes]] = ..., open_proposals: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("run", "round", "activity", "steps_done", "steps_total", "tokens_done", "bytes_down", "bytes_up", "loss_fixed", "available_at", "transfer")
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
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
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
    transfer: _common_pb2.Transfer
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., activity: _Optional[str] = ..., steps_done: _Optional[int] = ..., steps_total: _Optional[int] = ..., tokens_done: _Optional[int] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., loss_fixed: _Optional[int] = ..., available_at: _Optional[str] = ..., transfer: _Optional[_Union[_common_pb2.Transfer, _Mapping]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("round_open",)
    ROUND_OPEN_FIELD_NUMBER: _ClassVar[int]
    round_open: bool
    def __init__(self, round_open: _Optional[bool] = ...) -> None: ...

class ProposalsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ProposalsResponse(_message.Message):
    __slots__ = ("proposals",)
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    proposals: _containers.RepeatedCompositeFieldContainer[Proposal]
    def __init__(self, proposals: _Optional[_Iterable[_Union[Proposal, _Mapping]]] = ...) -> None: ...

class Proposal(_message.Message):
    __slots__ = ("payload_json", "proposed_at", "approvals_needed", "approved_by")
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_AT_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    payload_json: bytes
    proposed_at: str
    approvals_needed: int
    approved_by: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, payload_json: _Optional[bytes] = ..., proposed_at: _Optional[str] = ..., approvals_needed: _Optional[int] = ..., approved_by: _Optional[_Iterable[str]] = ...) -> None: ...

class ApproveRequest(_message.Message):
    __slots__ = ("payload_sha256", "signature")
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    payload_sha256: bytes
    signature: bytes
    def __init__(self, payload_sha256: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ApproveResponse(_message.Message):
    __slots__ = ("index", "approvals_needed", "approvals_given")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_NEEDED_FIELD_NUMBER: _ClassVar[int]
    APPROVALS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    index: int
    approvals_needed: int
    approvals_given: int
    def __init__(self, index: _Optional[int] = ..., approvals_needed: _Optional[int] = ..., approvals_given: _Optional[int] = ...) -> None: ...

class PresentRequest(_message.Message):
    __slots__ = ("checkpoint", "entries", "consistency", "metrics", "lacking")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.LedgerEntry]
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    metrics: _containers.RepeatedCompositeFieldContainer[PresentedMetrics]
    lacking: _containers.RepeatedCompositeFieldContainer[_common_pb2.BlobRef]
    def __init__(self, checkpoint: _Optional[bytes] = ..., entries: _Optional[_Iterable[_Union[_common_pb2.LedgerEntry, _Mapping]]] = ..., consistency: _Optional[_Iterable[bytes]] = ..., metrics: _Optional[_Iterable[_Union[PresentedMetrics, _Mapping]]] = ..., lacking: _Optional[_Iterable[_Union[_common_pb2.BlobRef, _Mapping]]] = ...) -> None: ...

class PresentedMetrics(_message.Message):
    __slots__ = ("contribution", "metrics", "metrics_salt")
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METRICS_SALT_FIELD_NUMBER: _ClassVar[int]
    contribution: bytes
    metrics: bytes
    metrics_salt: bytes
    def __init__(self, contribution: _Optional[bytes] = ..., metrics: _Optional[bytes] = ..., metrics_salt: _Optional[bytes] = ...) -> None: ...

class PresentResponse(_message.Message):
    __slots__ = ("recovering", "ledger_size", "wanted_blobs", "wanted_metrics", "lineage")
    RECOVERING_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SIZE_FIELD_NUMBER: _ClassVar[int]
    WANTED_BLOBS_FIELD_NUMBER: _ClassVar[int]
    WANTED_METRICS_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    recovering: bool
    ledger_size: int
    wanted_blobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.BlobRef]
    wanted_metrics: _containers.RepeatedScalarFieldContainer[bytes]
    lineage: int
    def __init__(self, recovering: _Optional[bool] = ..., ledger_size: _Optional[int] = ..., wanted_blobs: _Optional[_Iterable[_Union[_common_pb2.BlobRef, _Mapping]]] = ..., wanted_metrics: _Optional[_Iterable[bytes]] = ..., lineage: _Optional[int] = ...) -> None: ...
