from common.wire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WithdrawProposalRequest(_message.Message):
    __slots__ = ("payload_sha256",)
    PAYLOAD_SHA256_FIELD_NUMBER: _ClassVar[int]
    payload_sha256: bytes
    def __init__(self, payload_sha256: _Optional[bytes] = ...) -> None: ...

class WithdrawProposalResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteMetricsRequest(_message.Message):
    __slots__ = ("run", "institution")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    run: str
    institution: str
    def __init__(self, run: _Optional[str] = ..., institution: _Optional[str] = ...) -> None: ...

class DeleteMetricsResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...

class InviteRequest(_message.Message):
    __slots__ = ("institution", "expires_hours", "roles")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_HOURS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    institution: str
    expires_hours: int
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, institution: _Optional[str] = ..., expires_hours: _Optional[int] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

class InviteResponse(_message.Message):
    __slots__ = ("invitation",)
    INVITATION_FIELD_NUMBER: _ClassVar[int]
    invitation: str
    def __init__(self, invitation: _Optional[str] = ...) -> None: ...

class ListInstitutionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Institution(_message.Message):
    __slots__ = ("name", "roles", "status", "last_seen", "certificate_expires_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    status: str
    last_seen: str
    certificate_expires_at: str
    def __init__(self, name: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., status: _Optional[str] = ..., last_seen: _Optional[str] = ..., certificate_expires_at: _Optional[str] = ...) -> None: ...

class ListInstitutionsResponse(_message.Message):
    __slots__ = ("institutions",)
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    institutions: _containers.RepeatedCompositeFieldContainer[Institution]
    def __init__(self, institutions: _Optional[_Iterable[_Union[Institution, _Mapping]]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("institution", "reason")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    institution: str
    reason: str
    def __init__(self, institution: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class InquireRequest(_message.Message):
    __slots__ = ("plan_json", "wait_milliseconds")
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    WAIT_MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    plan_json: bytes
    wait_milliseconds: int
    def __init__(self, plan_json: _Optional[bytes] = ..., wait_milliseconds: _Optional[int] = ...) -> None: ...

class InquireResponse(_message.Message):
    __slots__ = ("estimates",)
    ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    estimates: _containers.RepeatedCompositeFieldContainer[EstimateView]
    def __init__(self, estimates: _Optional[_Iterable[_Union[EstimateView, _Mapping]]] = ...) -> None: ...

class EstimateView(_message.Message):
    __slots__ = ("institution", "verdict", "codes", "seconds_per_round", "availability")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_PER_ROUND_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    institution: str
    verdict: str
    codes: _containers.RepeatedScalarFieldContainer[str]
    seconds_per_round: float
    availability: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, institution: _Optional[str] = ..., verdict: _Optional[str] = ..., codes: _Optional[_Iterable[str]] = ..., seconds_per_round: _Optional[float] = ..., availability: _Optional[_Iterable[str]] = ...) -> None: ...

class RunLogsRequest(_message.Message):
    __slots__ = ("run", "institution", "follow")
    RUN_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    run: str
    institution: str
    follow: bool
    def __init__(self, run: _Optional[str] = ..., institution: _Optional[str] = ..., follow: _Optional[bool] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("at", "round", "institution", "event", "text")
    AT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    at: str
    round: int
    institution: str
    event: str
    text: str
    def __init__(self, at: _Optional[str] = ..., round: _Optional[int] = ..., institution: _Optional[str] = ..., event: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("consortium", "version", "started_at", "now", "ledger_size", "members_active", "trainers_connected", "runs_active", "blob_bytes", "disk_free_bytes", "certificate_expires_at", "authority_expires_at", "open_calls", "fingerprint", "recovering")
    CONSORTIUM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    LEDGER_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    TRAINERS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    RUNS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    BLOB_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    OPEN_CALLS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RECOVERING_FIELD_NUMBER: _ClassVar[int]
    consortium: str
    version: str
    started_at: str
    now: str
    ledger_size: int
    members_active: int
    trainers_connected: int
    runs_active: int
    blob_bytes: int
    disk_free_bytes: int
    certificate_expires_at: str
    authority_expires_at: str
    open_calls: int
    fingerprint: str
    recovering: str
    def __init__(self, consortium: _Optional[str] = ..., version: _Optional[str] = ..., started_at: _Optional[str] = ..., now: _Optional[str] = ..., ledger_size: _Optional[int] = ..., members_active: _Optional[int] = ..., trainers_connected: _Optional[int] = ..., runs_active: _Optional[int] = ..., blob_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., certificate_expires_at: _Optional[str] = ..., authority_expires_at: _Optional[str] = ..., open_calls: _Optional[int] = ..., fingerprint: _Optional[str] = ..., recovering: _Optional[str] = ...) -> None: ...

class StartRunRequest(_message.Message):
    __slots__ = ("plan_json",)
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    plan_json: bytes
    def __init__(self, plan_json: _Optional[bytes] = ...) -> None: ...

class StartRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunView]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunView, _Mapping]]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ControlRunRequest(_message.Message):
    __slots__ = ("run", "action", "reason", "rounds", "deadline_seconds", "to_round")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TO_ROUND_FIELD_NUMBER: _ClassVar[int]
    run: str
    action: str
    reason: str
    rounds: int
    deadline_seconds: int
    to_round: int
    def __init__(self, run: _Optional[str] = ..., action: _Optional[str] = ..., reason: _Optional[str] = ..., rounds: _Optional[int] = ..., deadline_seconds: _Optional[int] = ..., to_round: _Optional[int] = ...) -> None: ...

class ControlRunResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class RunView(_message.Message):
    __slots__ = ("run", "plan_name", "phase", "round", "rounds_planned", "participants", "rounds", "refusals", "end_reason", "model", "deadline", "quorum", "opened_at", "eta_seconds", "protocol_version")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_NAME_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_PLANNED_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    ETA_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    run: str
    plan_name: str
    phase: str
    round: int
    rounds_planned: int
    participants: _containers.RepeatedCompositeFieldContainer[ParticipantView]
    rounds: _containers.RepeatedCompositeFieldContainer[RoundView]
    refusals: _containers.RepeatedCompositeFieldContainer[RefusalView]
    end_reason: str
    model: _common_pb2.BlobRef
    deadline: str
    quorum: int
    opened_at: str
    eta_seconds: float
    protocol_version: int
    def __init__(self, run: _Optional[str] = ..., plan_name: _Optional[str] = ..., phase: _Optional[str] = ..., round: _Optional[int] = ..., rounds_planned: _Optional[int] = ..., participants: _Optional[_Iterable[_Union[ParticipantView, _Mapping]]] = ..., rounds: _Optional[_Iterable[_Union[RoundView, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[RefusalView, _Mapping]]] = ..., end_reason: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., deadline: _Optional[str] = ..., quorum: _Optional[int] = ..., opened_at: _Optional[str] = ..., eta_seconds: _Optional[float] = ..., protocol_version: _Optional[int] = ...) -> None: ...

class ParticipantView(_message.Message):
    __slots__ = ("institution", "state", "steps_done", "steps_total", "tokens_done", "bytes_down", "bytes_up", "loss_fixed", "reasons", "tokens_per_second", "available_at", "transfer")
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STEPS_DONE_FIELD_NUMBER: _ClassVar[int]
    STEPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TOKENS_DONE_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIXED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_AT_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    institution: str
    state: str
    steps_done: int
    steps_total: int
    tokens_done: int
    bytes_down: int
    bytes_up: int
    loss_fixed: int
    reasons: _containers.RepeatedScalarFieldContainer[str]
    tokens_per_second: float
    available_at: str
    transfer: _common_pb2.Transfer
    def __init__(self, institution: _Optional[str] = ..., state: _Optional[str] = ..., steps_done: _Optional[int] = ..., steps_total: _Optional[int] = ..., tokens_done: _Optional[int] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., loss_fixed: _Optional[int] = ..., reasons: _Optional[_Iterable[str]] = ..., tokens_per_second: _Optional[float] = ..., available_at: _Optional[str] = ..., transfer: _Optional[_Union[_common_pb2.Transfer, _Mapping]] = ...) -> None: ...

class RoundView(_message.Message):
    __slots__ = ("round", "task", "outcome", "cohort", "contributors", "seconds", "bytes_down", "bytes_up", "evaluations", "reason")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    COHORT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    round: int
    task: str
    outcome: str
    cohort: _containers.RepeatedScalarFieldContainer[str]
    contributors: _containers.RepeatedScalarFieldContainer[str]
    seconds: float
    bytes_down: int
    bytes_up: int
    evaluations: _containers.RepeatedCompositeFieldContainer[EvaluationView]
    reason: str
    def __init__(self, round: _Optional[int] = ..., task: _Optional[str] = ..., outcome: _Optional[str] = ..., cohort: _Optional[_Iterable[str]] = ..., contributors: _Optional[_Iterable[str]] = ..., seconds: _Optional[float] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., evaluations: _Optional[_Iterable[_Union[EvaluationView, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class EvaluationView(_message.Message):
    __slots__ = ("scope", "loss_sum_fixed", "num_tokens", "institutions")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUM_FIXED_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    loss_sum_fixed: int
    num_tokens: int
    institutions: int
    def __init__(self, scope: _Optional[str] = ..., loss_sum_fixed: _Optional[int] = ..., num_tokens: _Optional[int] = ..., institutions: _Optional[int] = ...) -> None: ...

class RefusalView(_message.Message):
    __slots__ = ("index", "institution", "round", "code", "attribution", "refused_sha256")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    REFUSED_SHA256_FIELD_NUMBER: _ClassVar[int]
    index: int
    institution: str
    round: int
    code: str
    attribution: str
    refused_sha256: str
    def __init__(self, index: _Optional[int] = ..., institution: _Optional[str] = ..., round: _Optional[int] = ..., code: _Optional[str] = ..., attribution: _Optional[str] = ..., refused_sha256: _Optional[str] = ...) -> None: ...
