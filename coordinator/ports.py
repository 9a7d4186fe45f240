"""What the servicers ask of the coordinator: the seam between gRPC (coordinator.api) and everything that decides.

A servicer decodes, calls one of these, encodes. Commands go through `Desk` to the engine's queue and wait for its answer;
blob bytes go straight to the blob store and never pass the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from common.blobs.reference import BlobRef
from common.errors import LLMasOSError
from common.statements.kinds import Member, Role
from common.wire.messages import ActivityName, Estimate, Inquiry


@dataclass(frozen=True, slots=True)
class LedgerSlice:
    """Consecutive envelopes from `first_index` on, and how long the ledger is."""

    first_index: int
    envelopes: tuple[bytes, ...]
    ledger_size: int


class LedgerReader(Protocol):
    """The ledger for readers; any thread."""

    def slice(self, from_index: int, *, max_bytes: int, wait_seconds: float) -> LedgerSlice:
        """Entries from `from_index`, waiting up to `wait_seconds` for the first; at least one entry if any, then up to
        `max_bytes` of envelopes."""
        ...

    def readable_until(self, name: str) -> int | None:
        """Index of the last entry that this member may read; None where nothing limits it.

        Who left reads up to the entry that says that its deltas are deleted.
        """
        ...


class Members(Protocol):
    """Who may speak, by the newest roster; any thread."""

    def by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        """The active member whom this certificate belongs to.

        Raises:
            UnknownCertificate: no active member of the newest roster holds exactly this serial, key and name.
        """
        ...

    def follower_by_certificate(self, serial: str, spki_sha256: str, peer: str) -> Member:
        """The same for a call that only follows the ledger: also who left is let in.

        Raises:
            UnknownCertificate: as `by_certificate`; who was revoked is refused here too.
        """
        ...


@dataclass(frozen=True, slots=True)
class Metrics:
    """A contribution's metrics as they came: deletable, never in the ledger."""

    content: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class EnrolmentOffer:
    """A redeemed invitation, checked for form only. `proof` is checked by the engine."""

    invitation_id: str
    secret: bytes
    csr_der: bytes
    signing_key: bytes
    proof: bytes
    encryption_key: bytes | None


@dataclass(frozen=True, slots=True)
class Enrolled:
    certificate_pem: str
    roster_index: int


@dataclass(frozen=True, slots=True)
class RenewalOffer:
    """A member asks for a new certificate, checked for form only. The proofs are checked by the engine."""

    institution: str
    replaces_serial: str
    csr_der: bytes
    proof: bytes
    new_signing_key: bytes | None = None
    new_proof: bytes | None = None


class Desk(Protocol):
    """Commands. Each blocks until the engine has made its effect durable, or raises what it decided."""

    def submit(self, sender: Member, envelope: bytes, metrics: Metrics | None) -> int:
        """Ledger index of an institution's statement; the same bytes again give the same index.

        Raises:
            RefusalError: and, where the protocol says so, a refusal statement is in the ledger.
        """
        ...

    def enrol(self, offer: EnrolmentOffer) -> Enrolled: ...

    def renew(self, offer: RenewalOffer) -> Enrolled:
        """A new certificate, and the roster that names it; the same offer again gives the same certificate."""
        ...

    def revoke(self, institution: str, reason: str) -> int:
        """Ends a membership; the index of the roster that says so."""
        ...

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...]) -> str:
        """The armoured invitation."""
        ...

    def start_run(self, plan_json: bytes) -> str:
        """The run's id."""
        ...

    def control_run(self, run: str, action: str, reason: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Activity:
    """What an institution reports of its local work; unsigned, in memory only."""

    run: str
    round: int
    activity: ActivityName
    steps_done: int = 0
    steps_total: int = 0
    tokens_done: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    loss_fixed: int | None = None
    available_at: str = ""


class Inquiries(Protocol):
    """Questions of operators to institutions, in memory only; any thread."""

    def open_for(self, member: Member) -> tuple[Inquiry, ...]:
        """What this member has not answered yet."""
        ...

    def answer(self, member: Member, estimate: Estimate) -> None:
        """
        Raises:
            UnknownObject: no such inquiry is open.
        """
        ...

    def ask(self, plan_json: bytes, wait_seconds: float) -> tuple[EstimateView, ...]:
        """What every active trainer says to a draft, ascending by name; `silent` after `wait_seconds`."""
        ...


class Board(Protocol):
    """Leases and live progress; any thread."""

    def report(self, sender: Member, activity: Activity) -> bool:
        """Renews the sender's lease; whether the round still takes contributions."""
        ...

    def heard(self, sender: Member) -> None:
        """The sender is there, whatever it asks."""
        ...


@dataclass(frozen=True, slots=True)
class UploadPurpose:
    """What a blob is sent for: one of the two is set."""

    round_opened: str | None = None
    """Digest of the round-opened statement, hexadecimal."""
    plan: str | None = None


class Access(Protocol):
    """Who may read and write which blob, by statement; any thread."""

    def check_read(self, reader: Member, ref: BlobRef) -> None:
        """
        Raises:
            NotAuthorised: no statement names this blob for this member.
        """
        ...

    def check_write(self, writer: Member, ref: BlobRef, purpose: UploadPurpose) -> None:
        """
        Raises:
            RoundNotOpen, NotInCohort, RoleMissing, BlobTooLarge: the blob is not wanted, or not of the size that the plan's
                manifest gives.
        """
        ...


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


class Refusals(Protocol):
    """Told of calls that were refused; keeps what belongs in the ledger. Any thread."""

    def note(self, sender: Member, error: LLMasOSError, purpose: UploadPurpose | None, refused_sha256: str) -> None:
        """
        Args:
            purpose: what the call was for, as far as that is known.
            refused_sha256: of its first message, hexadecimal.
        """
        ...


class BytesMoved(Protocol):
    """Told of blob payload bytes as they pass, for views and limits."""

    def moved(self, member: str, *, down: int = 0, up: int = 0) -> None: ...
