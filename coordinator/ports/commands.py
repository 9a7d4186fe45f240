"""Commands: each waits for the engine's answer; and what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.statements.kinds import Member, Role
from common.wire.messages import Approved, Proposal


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


@dataclass(frozen=True, slots=True)
class Steering:
    """What belongs to `extend` (one of the first two) or `rollback` of a run.

    Args:
        rounds: training rounds in all.
        deadline_seconds: from now to the open round's new deadline.
        to_round: the round after which the run goes on; 0: its beginning.
    """

    rounds: int | None = None
    deadline_seconds: int | None = None
    to_round: int | None = None


NOTHING = Steering()


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

    def control_run(self, run: str, action: str, reason: str, steering: Steering = NOTHING) -> int:
        """pause, resume, extend, rollback, abort; the statement's ledger index."""
        ...

    @property
    def open_proposals(self) -> int:
        """How many drafts await approvals; asked with each reply of Follow."""
        ...

    def proposals(self) -> tuple[Proposal, ...]:
        """Drafts that await approvals, oldest first."""
        ...

    def approve(self, sender: Member, payload_sha256: str, signature: bytes) -> Approved:
        """Put an institution's signature under a draft; the same again gives the same answer.

        Raises:
            UnknownObject: no such draft is open.
            RoleMissing, BadSignature: the sender may not approve, or did not sign this payload.
        """
        ...

    def withdraw_proposal(self, payload_sha256: str) -> None:
        """
        Raises:
            UnknownObject: no such draft is open.
        """
        ...

    def delete_metrics(self, run: str, institution: str) -> int:
        """Deletes metrics of a run, of one institution or of all; how many records.

        Raises:
            UnknownObject: no run, or more than one, has this prefix.
        """
        ...
