from common.wire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("name", "roles", "status", "last_seen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    status: str
    last_seen: str
    def __init__(self, name: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., status: _Optional[str] = ..., last_seen: _Optional[str] = ...) -> None: ...

class ListInstitutionsResponse(_message.Message):
    __slots__ = ("institutions",)
    INSTITUTIONS_FIELD_NUMBER: _ClassVar[int]
    institutions: _containers.RepeatedCompositeFieldContainer[Institution]
    def __init__(self, institutions: _Optional[_Iterable[_Union[Institution, _Mapping]]] = ...) -> None: ...

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
    __slots__ = ("run", "action", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    action: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., action: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ControlRunResponse(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class RunView(_message.Message):
    __slots__ = ("run", "plan_name", "phase", "round", "rounds_planned", "participants", "rounds", "refusals", "end_reason", "model", "deadline")
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
    def __init__(self, run: _Optional[str] = ..., plan_name: _Optional[str] = ..., phase: _Optional[str] = ..., round: _Optional[int] = ..., rounds_planned: _Optional[int] = ..., participants: _Optional[_Iterable[_Union[ParticipantView, _Mapping]]] = ..., rounds: _Optional[_Iterable[_Union[RoundView, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[RefusalView, _Mapping]]] = ..., end_reason: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.BlobRef, _Mapping]] = ..., deadline: _Optional[str] = ...) -> None: ...

class ParticipantView(_message.Message):
    __slots__ = ("institution", "state", "steps_done", "steps_total", "tokens_done", "bytes_down", "bytes_up", "loss_fixed", "reasons", "tokens_per_second")
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
    def __init__(self, institution: _Optional[str] = ..., state: _Optional[str] = ..., steps_done: _Optional[int] = ..., steps_total: _Optional[int] = ..., tokens_done: _Optional[int] = ..., bytes_down: _Optional[int] = ..., bytes_up: _Optional[int] = ..., loss_fixed: _Optional[int] = ..., reasons: _Optional[_Iterable[str]] = ..., tokens_per_second: _Optional[float] = ...) -> None: ...

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
    __slots__ = ("index", "institution", "round", "code", "attribution")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INSTITUTION_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    institution: str
    round: int
    code: str
    attribution: str
    def __init__(self, index: _Optional[int] = ..., institution: _Optional[str] = ..., round: _Optional[int] = ..., code: _Optional[str] = ..., attribution: _Optional[str] = ...) -> None: ...
