"""Read models for operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from common.blobs.reference import BlobRef
from common.wire.messages import TransferProgress


@dataclass(frozen=True, slots=True)
class InstitutionView:
    name: str
    roles: tuple[str, ...]
    status: str
    last_seen: str
    certificate_expires_at: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationView:
    scope: str
    loss_sum_fixed: int
    num_tokens: int
    institutions: int


@dataclass(frozen=True, slots=True)
class RoundView:
    round: int
    task: str
    outcome: str
    cohort: tuple[str, ...]
    contributors: tuple[str, ...]
    seconds: float
    bytes_down: int
    bytes_up: int
    evaluations: tuple[EvaluationView, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ParticipantView:
    institution: str
    state: str
    steps_done: int = 0
    steps_total: int = 0
    tokens_done: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    loss_fixed: int | None = None
    reasons: tuple[str, ...] = ()
    tokens_per_second: float = 0.0
    available_at: str = ""
    transfer: TransferProgress | None = None


@dataclass(frozen=True, slots=True)
class RefusalView:
    index: int
    institution: str
    round: int
    code: str
    attribution: str
    refused_sha256: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """All that an operator sees of a run."""

    run: str
    plan_name: str
    phase: str
    round: int
    rounds_planned: int
    participants: tuple[ParticipantView, ...] = ()
    rounds: tuple[RoundView, ...] = ()
    refusals: tuple[RefusalView, ...] = ()
    end_reason: str = ""
    model: BlobRef | None = None
    deadline: str = ""
    quorum: int = 0
    opened_at: str = ""
    eta_seconds: float = 0.0
    protocol_version: int = 1


@dataclass(frozen=True, slots=True)
class EstimateView:
    """What an institution's policy would say to a draft; binds nobody."""

    institution: str
    verdict: str
    codes: tuple[str, ...] = ()
    seconds_per_round: float = 0.0
    availability: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One event of a run; `institution` is empty for the coordinator's own."""

    at: str
    round: int
    institution: str
    event: str
    text: str


@dataclass(frozen=True, slots=True)
class CoordinatorStatus:
    """How the coordinator itself is."""

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
    recovering: str = ""
    """What is waited for before anything is signed; empty: nothing."""


class Views(Protocol):
    """Read models for operators; any thread."""

    def institutions(self) -> tuple[InstitutionView, ...]: ...

    def runs(self) -> tuple[RunView, ...]: ...

    def watch(self, run: str) -> Iterator[RunView]:
        """The run's view now, then at each change (at most every 0.25 s), until it ended.

        Raises:
            UnknownObject: no run, or more than one, has this prefix.
        """
        ...

    def logs(self, run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        """The run's events, oldest first; with `follow` also new ones, until it ended.

        None says that all was told for now: whoever reads for somebody else sees whether that one is still there.

        Raises:
            UnknownObject: no run, or more than one, has this prefix; no such member.
        """
        ...

    def status(self) -> CoordinatorStatus: ...
