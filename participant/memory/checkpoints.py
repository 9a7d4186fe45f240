"""Checkpoints beside the own copy of the ledger: its history, ahead of it, or two histories (docs/protocol.md#witnesses).

    newest        the largest that the copy bears out; a smaller one after it goes back
    ahead         of more entries than the copy has: compared once it has caught up
    conflicting   signed by the log, and not of this history: kept for ever, and following ends, also after a restart

What is known here outlives the process: all of it stands in the journal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from common.clock import Clock, rfc3339
from common.errors import BadSignature, LedgerConflict, MalformedStatement, TwoHistories
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, parse_note, read_checkpoint
from common.ledger.witnesses import cosigners, witnesses_of
from participant.memory.journal import CheckpointKind, Journal, KeptCheckpoint
from participant.memory.mirror import Mirror

MAX_AHEAD = 64
"""Checkpoints of more entries than the own copy has that are remembered; beyond them the largest gives way."""
FIX = (
    "Sign nothing more, and export the evidence: llmasos-participant evidence export FILE. "
    "What each side does next: docs/operations.md#two-histories."
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A note that the log signed, and what it says."""

    note: Note
    head: TreeHead
    seen_at: str

    @property
    def row(self) -> KeptCheckpoint:
        return KeptCheckpoint(self.head.size, self.head.root.hex(), self.note.encode(), self.seen_at)


def by_size(found: Checkpoint) -> int:
    """To sort by."""
    return found.head.size


class Checkpoints:
    """Holds what the log signed against the mirror. One thread writes; `newest` may be read from any.

    Raises:
        LedgerConflict: a checkpoint in the journal is not of the copy beside it.
    """

    def __init__(self, mirror: Mirror, journal: Journal, clock: Clock) -> None:
        self._mirror, self._journal, self._clock = mirror, journal, clock
        self._log = log_key(mirror.state.genesis)
        self._largest_ledger = 0
        self._waiting: dict[CheckpointKind, Iterable[Checkpoint]] = {}
        newest = self.kept("newest")
        self._ahead = {each.head.size: each for each in self.kept("ahead")}
        self.newest: Checkpoint | None = newest[0] if newest else None
        """The largest that this copy bears out, with the log's signature alone."""

    def expect_one_history(self) -> None:
        """
        Raises:
            TwoHistories: two were shown to this institution, and no person has seen to it yet.
        """
        kept = self._journal.checkpoints_of("conflicting")
        if kept:
            raise TwoHistories(
                f"Two histories were shown to this institution: {len(kept)} checkpoints in its journal contradict its copy "
                f"of the ledger, the first seen at {kept[0].seen_at}.",
                f"{FIX} To go on in spite of it: llmasos-participant checkpoint acknowledge.",
            )

    @property
    def largest_ahead(self) -> Checkpoint | None:
        """The one of most entries, of those beyond the copy."""
        return max(self._ahead.values(), key=by_size, default=None)

    # --- reading and keeping -----------------------------------------------------------------------------------------

    def read(self, note: bytes) -> Checkpoint:
        """
        Raises:
            BadSignature, MalformedStatement: it is damaged, or not the log's.
        """
        parsed = parse_note(note)
        return Checkpoint(parsed, read_checkpoint(parsed, self._log), rfc3339(self._clock.now()))

    def bare(self, found: Checkpoint) -> Checkpoint:
        """The same with the log's signature alone."""
        log = (self._log.name, self._log.id)
        signed = tuple(each for each in found.note.signatures if (each.name, each.key_id) == log)
        return replace(found, note=replace(found.note, signatures=signed[:1]))

    def keep(self, kind: CheckpointKind, found: Iterable[Checkpoint]) -> None:
        """As Journal.keep_kinds, of one kind."""
        self.keep_together({kind: found})

    def settle(self) -> None:
        """Keep what waits for company."""
        if self._waiting:
            self.keep_together({})

    def keep_together(self, kept: dict[CheckpointKind, Iterable[Checkpoint]]) -> None:
        """Several kinds at once, and what waited: one wait for the disk."""
        self._journal.keep_kinds({kind: [each.row for each in found] for kind, found in (self._waiting | kept).items()})
        self._waiting = {}

    def kept(self, kind: CheckpointKind) -> list[Checkpoint]:
        """Those of one kind in the journal, believed only as far as they can be."""
        try:
            found = [replace(self.read(row.note), seen_at=row.seen_at) for row in self._journal.checkpoints_of(kind)]
        except (BadSignature, MalformedStatement) as err:
            raise LedgerConflict(f"A checkpoint in the journal cannot be: {err.message} ({err.code})") from err
        own = self._mirror.state.size
        for each in found if kind in ("newest", "covering") else ():
            if each.head.size > own or self._mirror.head(each.head.size) != each.head:
                raise LedgerConflict(
                    f"A checkpoint of {each.head.size} entries in the journal is not of the {own} entries there."
                )
        return found

    # --- comparing ---------------------------------------------------------------------------------------------------

    def never_shorter(self, ledger_size: int, checkpoint: bytes) -> None:
        """A ledger only grows, and so does what is told of its length; `checkpoint` is the note that came beside.

        Raises:
            TwoHistories: it was longer before.
        """
        own = self._mirror.head()
        before = max(own.size, self._largest_ledger)
        if ledger_size >= before:
            self._largest_ledger = ledger_size
            return
        try:
            shown = [self.bare(self.read(checkpoint))] if checkpoint else []
        except (BadSignature, MalformedStatement):
            shown = []  # a note that is not the log's is no evidence of what the coordinator did
        raise self.two_histories(
            f"The coordinator's ledger has {ledger_size} entries, and had {before} before; the copy here has {own.size}, "
            f"root {own.root.hex()}: it was restored from an older state, or shows another history.",
            *shown,
        )

    def compare(self, found: Checkpoint) -> bool:
        """Hold the log's newest checkpoint against the own copy and those before; whether the copy bears out more by it.

        Raises:
            TwoHistories: it is not of this history, or smaller than one that was signed before. It is kept.
        """
        signed = [each for each in (self.newest, *self._ahead.values()) if each is not None]
        largest = max(signed, key=by_size, default=found)
        if found.head.size < largest.head.size:
            raise self.two_histories(
                f"The coordinator went back: its checkpoint has {found.head.size} entries, root {found.head.root.hex()}, "
                f"after it had signed one of {largest.head.size}, root {largest.head.root.hex()}.",
                found,
            )
        return self.is_own_history(found) and self._advance(found)

    def is_own_history(self, found: Checkpoint) -> bool:
        """Whether the own copy has that head; a longer ledger's is remembered, and compared once the copy has caught up.

        Raises:
            TwoHistories: it has another one. The checkpoint is kept with all its signatures.
        """
        size = found.head.size
        if size > self._mirror.state.size:
            self._remember(self.bare(found))
            return False
        own = self._mirror.head(size)
        if own == found.head:
            return True
        names = ", ".join(cosigners(found.note, witnesses_of(self._mirror.state)))
        raise self.two_histories(
            f"The coordinator signed two histories of {size} entries: its checkpoint's root is {found.head.root.hex()}, "
            f"the copy here gives {own.root.hex()}."
            + (f" Witnesses that cosigned the other one: {names}." if names else ""),
            found,
        )

    def catch_up(self) -> bool:
        """Compare those that were ahead of the copy and are not any more; whether the copy bears out more by them."""
        news = False
        for size in sorted(size for size in self._ahead if size <= self._mirror.state.size):
            found = self._ahead[size]
            news |= self.is_own_history(found) and self._advance(found)
            del self._ahead[size]
            self.keep("ahead", self._ahead.values())
        return news

    def two_histories(self, message: str, *shown: Checkpoint) -> TwoHistories:
        """The error, once what shows it is kept."""
        self.keep("conflicting", shown)
        return TwoHistories(message, FIX)

    def _advance(self, found: Checkpoint) -> bool:
        if self.newest is not None and found.head.size <= self.newest.head.size:
            return False
        self._waiting = {"newest": [found]}
        self.newest = found
        return True

    def _remember(self, found: Checkpoint) -> None:
        known = self._ahead.get(found.head.size)
        if known is not None and known.head != found.head:
            raise self.two_histories(
                f"The coordinator signed two histories of {found.head.size} entries: root {known.head.root.hex()} in one "
                f"checkpoint, root {found.head.root.hex()} in another.",
                known,
                found,
            )
        if known is None:
            if len(self._ahead) >= MAX_AHEAD:
                del self._ahead[max(self._ahead)]
            self._ahead[found.head.size] = found
            self.keep("ahead", self._ahead.values())
