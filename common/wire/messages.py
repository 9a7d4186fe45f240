"""What wire messages become: plain values that were checked on arrival (common.wire.convert makes them).

The coordinator's own seam (coordinator.ports) has types of its own; these are what both ends need, or the calling end alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from common.blobs.reference import BlobRef

ActivityName = Literal[
    "fetching",
    "preparing",
    "evaluating",
    "training",
    "sending",
    "waiting",
    "paused",
    "outside-hours",
    "machine-busy",
]

Verdict = Literal["accept", "refuse", "ask"]


@dataclass(frozen=True, slots=True)
class LedgerEntries:
    """Consecutive envelopes from `first_index` on, and how long the ledger is."""

    first_index: int
    envelopes: tuple[bytes, ...]
    ledger_size: int
    inquiries: tuple[Inquiry, ...] = ()
    checkpoint: bytes = b""
    """A note: the newest checkpoint, signed by the log alone; empty where the coordinator sent none."""
    cosigned: tuple[bytes, ...] = ()
    """Notes that show which entries a majority of the witnesses cosigned."""
    open_proposals: int = 0


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's word on the checkpoint of `size` entries: 8 bytes of time, 64 of signature (C2SP tlog-cosignature)."""

    size: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class LogHead:
    """A note and what shows that an older tree is its beginning."""

    checkpoint: bytes
    consistency: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A draft of a statement that awaits approvals: the payload that is to be signed, and who has signed it."""

    payload: bytes
    proposed_at: str
    approvals_needed: int
    approved_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Approved:
    """What an approval came to; `index` is where the statement stands, once enough approved it."""

    index: int | None
    approvals_needed: int
    approvals_given: int


@dataclass(frozen=True, slots=True)
class Inquiry:
    """An operator asks what a policy would say to a draft; nobody is bound."""

    id: bytes
    plan_json: bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """An institution's word on an inquiry."""

    id: bytes
    verdict: Verdict
    codes: tuple[str, ...] = ()
    seconds_per_round: float = 0.0
    availability: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a chunk: `data` starts at byte `offset` of chunk `chunk`."""

    chunk: int
    offset: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a blob is sent for; exactly one of the three is set."""

    round_opened: str | None = None
    """SHA-256 of the round-opened statement's payload, hexadecimal digits."""
    plan: str | None = None
    """A run's name, by an operator."""
    recovery: bool = False
    """A recovering coordinator asked for it."""

    def __post_init__(self) -> None:
        if (self.round_opened is not None) + (self.plan is not None) + self.recovery != 1:
            raise ValueError("a purpose is a round, a plan or a recovery, one of the three")


@dataclass(frozen=True, slots=True)
class Presented:
    """What an institution saw of the ledger, for a coordinator that may hold less.

    Args:
        checkpoint: a note, signed by the log alone; empty: none.
        envelopes: consecutive entries from `first_index` on.
        consistency: from the tree that ends with the last of them to the checkpoint's.
        metrics: of its own contributions, by their digests.
        lacking: what it was asked for and does not hold.
    """

    checkpoint: bytes
    first_index: int = 0
    envelopes: tuple[bytes, ...] = ()
    consistency: tuple[bytes, ...] = ()
    metrics: tuple[tuple[str, MetricsRecord], ...] = ()
    lacking: tuple[BlobRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a recovering coordinator asks for next; with `recovering` False, nothing."""

    recovering: bool
    ledger_size: int
    blobs: tuple[BlobRef, ...] = ()
    metrics: tuple[str, ...] = ()
    lineage: int = 0


@dataclass(frozen=True, slots=True)
class MetricsRecord:
    """A contribution's metrics beside it: canonical JSON, and the salt that its commitment used."""

    content: bytes
    salt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Where a transfer stands.

    Args:
        bytes_done, bytes_total: of the blob; done is what the receiver holds or has on the way to it.
        bytes_per_second: lately; 0 while nothing is known.
    """

    bytes_done: int = 0
    bytes_total: int = 0
    bytes_per_second: int = 0

    @property
    def eta_seconds(self) -> float | None:
        """How long the rest takes at this rate; None: unknown."""
        left = self.bytes_total - self.bytes_done
        if left <= 0:
            return 0.0
        return left / self.bytes_per_second if self.bytes_per_second > 0 else None


@dataclass(frozen=True, slots=True)
class ActivityReport:
    """How local work goes. `loss_fixed` is nats × 2^16."""

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
    transfer: TransferProgress | None = None


@dataclass(frozen=True, slots=True)
class RenewalRequest:
    """What renews a certificate; `proof` is over common.identity.certificates.renew_proof_message."""

    institution: str
    replaces_serial: str
    csr_der: bytes
    proof: bytes
    new_signing_key: bytes | None = None
    new_proof: bytes | None = None


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What redeems an invitation; `proof` is over common.identity.certificates.enrol_proof_message."""

    invitation_id: str
    secret: bytes = field(repr=False)
    csr_der: bytes
    signing_key: bytes
    proof: bytes
    encryption_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an invitation was redeemed for."""

    certificate_pem: str
    roster_index: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a certificate is refused; code `ok` when it is not. `coordinator_time` is RFC 3339 UTC."""

    code: str
    message: str
    fix: str
    coordinator_time: str
