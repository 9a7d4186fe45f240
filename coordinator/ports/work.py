"""What institutions do between statements: report, answer inquiries, move blobs; and what is noted of refused calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.blobs.reference import BlobRef
from common.blobs.upload import Upload
from common.errors import LLMasOSError
from common.statements.kinds import Member
from common.wire.messages import ActivityName, Estimate, Inquiry, TransferProgress
from coordinator.ports.views import EstimateView


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
    transfer: TransferProgress | None = None


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
    """What a blob is sent for: one of the three is set."""

    round_opened: str | None = None
    """Digest of the round-opened statement, hexadecimal."""
    plan: str | None = None
    recovery: bool = False
    """The coordinator asked for it while it recovers."""


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

    def senders(self, purpose: UploadPurpose) -> int:
        """How many may be sending for that purpose at once, the asker among them; at least 1."""
        ...


class Arrivals(Protocol):
    """Told of deltas that are about to come; any thread."""

    def follow(self, upload: Upload, round_opened: str) -> None:
        """See the chunks of this upload as they come; `round_opened` is the digest of the statement that opened its round."""
        ...


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
