"""What is read of the ledger: entries, heads and proofs, witnesses, members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from common.ledger.notes import Note
from common.statements.kinds import Member
from common.wire.messages import Cosignature, LogHead


@dataclass(frozen=True, slots=True)
class LedgerSlice:
    """Consecutive envelopes from `first_index` on, and how long the ledger is."""

    first_index: int
    envelopes: tuple[bytes, ...]
    ledger_size: int


class LedgerReader(Protocol):
    """The ledger for readers; any thread."""

    def slice(
        self, from_index: int, *, max_bytes: int, wait_seconds: float, or_when: Callable[[], bool] = ...
    ) -> LedgerSlice:
        """Entries from `from_index`, waiting up to `wait_seconds` for the first, or until `or_when`, which is asked when
        the ledger grew or a majority of witnesses saw more; at least one entry if any, then up to `max_bytes` of envelopes."""
        ...

    def readable_until(self, name: str) -> int | None:
        """Index of the last entry that this member may read; None where nothing limits it.

        Who left reads up to the entry that says that its deltas are deleted.
        """
        ...


class LogHeads(Protocol):
    """The ledger's log: signed heads and proofs; any thread."""

    def newest(self) -> Note:
        """The checkpoint of all that is durable, signed by the log alone."""
        ...

    def head(self, old_size: int, *, cosigned: bool = True) -> LogHead:
        """The same, with cosignatures if wanted, and the proof that the tree of `old_size` entries is its beginning.

        Raises:
            UnknownObject: the tree never had so many.
        """
        ...

    def receipt(self, index: int, *, cosigned: bool = True) -> bytes:
        """The proof that entry `index` is in the newest checkpoint's tree, as a C2SP tlog-proof.

        Raises:
            UnknownObject: there is no such entry yet.
        """
        ...


class WitnessDesk(Protocol):
    """What witnesses cosigned; any thread."""

    def take(self, sender: Member, cosignature: Cosignature) -> None:
        """Count a witness's cosignature; one of a member that is no witness is passed over.

        Raises:
            MalformedMessage: there are not so many entries.
            BadSignature: it is not the sender's, or on another tree than this ledger's.
        """
        ...

    def newly_covers(self, known: int) -> bool:
        """Whether an open round's opening is covered, of which somebody who knows of `known` covered entries cannot know."""
        ...

    def notes_beyond(self, known: int) -> tuple[bytes, ...]:
        """The fewest notes that show which entries a majority saw; none where that is no more than `known`."""
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
