"""Witnesses, as the coordinator sees them: what they cosigned, and which entries a majority of them saw.

    witnesses.take(member, cosignature)      # it came with a Follow
    witnesses.newly_covers(11)               # the opening of an open round is among the entries that a majority cosigned now
    witnesses.notes_beyond(11)               # what shows that, the fewest notes

Each witness counts with the largest tree that it cosigned, under the key that the newest roster gives it: who left, or has
another key now, counts again once it has cosigned as what it is. The rules are those of common.ledger.witnesses, so whoever
reads the notes counts the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from common.errors import BadSignature, LLMasOSError, MalformedMessage
from common.ledger.notes import MAX_NOTE_BYTES, Note, NoteSignature, named_head, parse_note, verify_cosignature
from common.ledger.state import LedgerState
from common.ledger.witnesses import covered_size, majority, witnesses_of
from common.logs import get_logger
from common.statements.kinds import Member
from common.wire.convert import MAX_COSIGNED
from common.wire.messages import Cosignature
from coordinator.cosignatures import Cosignatures, Cosigned
from coordinator.ledger import Ledger
from coordinator.log import Log
from coordinator.store.database import Database

log = get_logger(__name__)

REMEMBERED_NOTES = 256
"""Notes that are read at a start, the newest: a cosignature of every witness is among them, or it comes again."""
LARGEST_LINE, LARGEST_CHECKPOINT = 256, 512
"""Bytes of a cosignature's line and of a checkpoint that the log signed, at most: names have 63 characters."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Entries that a majority saw, and cosignatures that show it, by the size of the checkpoint that they are on."""

    size: int = 0
    shown_by: dict[int, list[NoteSignature]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WitnessPorts:
    """What witnesses speak of, and where what a majority said is kept.

    Args:
        post: runs work on the engine's thread, which alone writes the database.
    """

    ledger: Ledger
    log: Log
    cosignatures: Cosignatures
    database: Database
    post: Callable[[Callable[[], None]], None]


class Witnesses:
    """Any thread."""

    def __init__(self, ports: WitnessPorts) -> None:
        self._ports = ports
        self._ledger, self._log, self._cosignatures = ports.ledger, ports.log, ports.cosignatures
        self._counted: tuple[int, object, object, Coverage] = (-1, None, None, Coverage())
        self._kept = 0
        if not ports.ledger.gate.closed:  # what is kept is read under notes of the log's, which signs nothing yet
            self.recall()

    def take(self, sender: Member, cosignature: Cosignature) -> None:
        """Count a witness's cosignature, when it says more than its last one.

        One of a member that is no witness is passed over, as readers of notes pass over names that they do not know: the
        role may have been taken while the call was on its way, and the call brings the roster that says so. For the same
        reason one that does not verify is passed over where its tree lacks the newest roster: it may be of an older key.

        Raises:
            MalformedMessage: there are not so many entries.
            BadSignature: it is not the sender's, or on another tree than this ledger's.
        """
        state = self._ledger.state
        key = witnesses_of(state).get(sender.name)
        if key is None:
            return
        known = self._cosignatures.newest(sender.name, key)
        if known is not None and cosignature.size <= known.size:
            return
        ahead = cosignature.size > state.size
        if ahead or cosignature.size < 1:
            raise MalformedMessage(
                f"Cosignature.size: expected 1 to {state.size:,}, got {cosignature.size:,}."
                + (f" {sender.name} saw a longer ledger than this one: was it restored from an old backup?" * ahead)
            )
        signature = NoteSignature(key.name, key.id, cosignature.signature)
        try:
            verify_cosignature(self._log.note(cosignature.size).with_signature(signature), key)
        except BadSignature as err:
            if state.roster_place is not None and cosignature.size <= state.roster_place.index:
                return
            raise BadSignature(
                f"The cosignature of {sender.name} on the checkpoint of {cosignature.size} entries does not verify under "
                "its key in the newest roster.",
                "Follow the ledger to its end; if it goes on, compare: llmasos-participant checkpoint compare.",
            ) from err
        before = self.covered()
        self._cosignatures.keep(sender.name, Cosigned(cosignature.size, signature, key))
        if self.covered() > before:
            self._ledger.wake()
            if self._worth_keeping():
                self._ports.post(self._keep)

    # --- what a majority saw -----------------------------------------------------------------------------------------

    def covered(self) -> int:
        """How many entries a majority of the witnesses cosigned; 0 where there are none."""
        return self._coverage().size

    def newly_covers(self, known: int) -> bool:
        """Whether an open round's opening is covered, of which somebody who knows of `known` covered entries cannot know."""
        covered = self.covered()
        return known < covered and any(known <= opening < covered for opening in _openings(self._ledger.state))

    def notes_beyond(self, known: int) -> tuple[bytes, ...]:
        """The fewest notes that show the covered size, the largest tree last; none where that is no more than `known`."""
        coverage = self._coverage()
        return tuple(note.encode() for _, note in self._notes(coverage)) if coverage.size > known else ()

    def _coverage(self) -> Coverage:
        """Counted anew when a cosignature came, or when members changed."""
        version, state = self._cosignatures.version, self._ledger.state
        counted, roster, departures, coverage = self._counted
        if counted != version or roster is not state.roster or departures is not state.departures:
            coverage = self._count(state)
            self._counted = (version, state.roster, state.departures, coverage)
        return coverage

    def _count(self, state: LedgerState) -> Coverage:
        witnesses = witnesses_of(state)
        cosigned = self._cosignatures.by(witnesses)
        size = covered_size({name: each.size for name, each in cosigned.items()}, len(witnesses))
        by_size: dict[int, list[NoteSignature]] = defaultdict(list)
        for each in cosigned.values():
            if each.size >= size:
                by_size[each.size].append(each.signature)
        shown_by: dict[int, list[NoteSignature]] = {}
        missing = majority(len(witnesses))
        for note_size in sorted(by_size, key=lambda at: (-len(by_size[at]), -at)):
            if missing > 0:
                shown_by[note_size] = by_size[note_size]
                missing -= len(by_size[note_size])
        return Coverage(size, shown_by) if size and _fits(shown_by) else Coverage()

    def _notes(self, coverage: Coverage) -> Iterator[tuple[int, Note]]:
        for size in sorted(coverage.shown_by):
            note = self._log.note(size)
            for signature in coverage.shown_by[size]:
                note = note.with_signature(signature)
            yield size, note

    # --- what is kept of it ------------------------------------------------------------------------------------------

    def _worth_keeping(self) -> bool:
        """Whether more is covered than notes in the database show, and it matters: an opening, or the end of all runs."""
        state, covered = self._ledger.state, self.covered()
        if covered <= self._kept:
            return False
        opened = any(self._kept <= opening < covered for opening in _openings(state))
        return opened or (covered == state.size and bool(state.runs) and not state.active_runs)

    def _keep(self) -> None:
        """On the engine's thread: the notes of the moment, in one transaction, for verification and evidence."""
        if not self._worth_keeping():
            return  # two cosignatures came at once, and the first one's turn kept both
        coverage, database = self._coverage(), self._ports.database
        notes = [(size, _joined(note, database.checkpoint(size))) for size, note in self._notes(coverage)]
        with database.transaction() as tx:
            for size, note in notes:
                tx.keep_checkpoint(size, note.encode())
        self._kept = coverage.size
        signers = sum(map(len, coverage.shown_by.values()))
        log.info("checkpoint cosigned by a majority", extra={"size": coverage.size, "witnesses": signers})

    def recall(self) -> None:
        """Cosignatures from before a restart: a witness sends each one once."""
        lines = {(key.name, key.id): (name, key) for name, key in witnesses_of(self._ledger.state).items()}
        for data in self._ports.database.checkpoints(newest=REMEMBERED_NOTES):
            try:
                stored = parse_note(data)
                size = named_head(stored).size
                note = Note(self._log.note(size).text, stored.signatures)
            except (LLMasOSError, IndexError) as err:
                log.warning("kept checkpoint unreadable", extra={"error": str(err)[:200]})
                continue
            for each in note.signatures:
                if (each.name, each.key_id) not in lines:
                    continue
                name, key = lines[each.name, each.key_id]
                try:
                    verify_cosignature(Note(note.text, (each,)), key)
                except BadSignature as err:  # altered, or of an older key whose id, four bytes, is the same
                    log.warning("kept checkpoint unreadable", extra={"error": err.message})
                else:
                    self._cosignatures.keep(name, Cosigned(size, each, key))
        self._kept = self.covered()


def _openings(state: LedgerState) -> Iterator[int]:
    """Where the openings of open rounds stand."""
    for run in state.active_runs:
        if run.open_round is not None:
            yield run.open_round.place.index


def _fits(shown_by: dict[int, list[NoteSignature]]) -> bool:
    """Whether a reply takes these notes. Where every witness is at another size it may not, until they have caught up."""
    lines = sum(map(len, shown_by.values()))
    size = len(shown_by) * LARGEST_CHECKPOINT + lines * LARGEST_LINE
    return len(shown_by) <= MAX_COSIGNED and size <= MAX_NOTE_BYTES


def _joined(note: Note, stored: bytes | None) -> Note:
    """The note with the signatures of the stored one that it lacks."""
    for signature in parse_note(stored).signatures if stored is not None else ():
        if (signature.name, signature.key_id) not in {(each.name, each.key_id) for each in note.signatures}:
            note = note.with_signature(signature)
    return note
