"""What this institution does as a witness, and what it asks of the others: docs/protocol.md#witnesses.

    Follow's reply ─▶ entries into the mirror, durably ─▶ checkpoint: its head is the own one of that size, or two histories
                                                       ├▶ of exactly the own size: cosigned, sent with the next Follow
                                                       └▶ cosigned notes: which entries a majority of the witnesses saw

A cosignature is made only over the head of the own copy as it stands on disk, and leaves only then. That copy grows and never
goes back, nor does what is cosigned, whenever a crash comes. A home that is restored from an older backup breaks this promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from common.clock import Clock
from common.errors import BadSignature, CoordinatorUnreachable
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead
from common.ledger.notes import NoteKey, cosign
from common.ledger.state import LedgerState, RoundRecord
from common.ledger.witnesses import cosigners, covered_size, majority, may_act, witnesses_of
from common.logs import get_logger
from common.statements.kinds import Roster
from common.wire.messages import Cosignature, LedgerEntries
from participant.memory.checkpoints import Checkpoint, Checkpoints, by_size
from participant.memory.journal import CheckpointKind, Journal
from participant.memory.mirror import Mirror

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WitnessingPorts:
    """Everything that witnessing uses."""

    institution: str
    mirror: Mirror
    journal: Journal
    key: Callable[[], SigningKey]
    """The one that the roster names now; raises CoordinatorUnreachable while that is open."""
    clock: Clock
    catching_up: Callable[[], bool] = lambda: False
    """Whether this home was restored and may have cosigned what it has not read again: nothing is cosigned then."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the witnesses are with a round's opening, as far as it is known here."""

    opening: int
    cosigned: int
    witnesses: int
    may_act: bool

    @property
    def needed(self) -> int:
        return majority(self.witnesses)


class Witnessing:
    """Hears each reply of Follow, on the follower's thread; `standing`, `covered` and `checkpoint_for` from any.

    Raises:
        LedgerConflict: a checkpoint in the journal is not of the copy beside it.
    """

    def __init__(self, ports: WitnessingPorts) -> None:
        self._ports = ports
        self._seen = Checkpoints(ports.mirror, ports.journal, ports.clock)
        self._covering: tuple[Checkpoint, ...] = tuple(self._seen.kept("covering"))
        self._sizes: Mapping[tuple[str, str], int] = {}
        self._counted_under: Roster | None = None
        self._signed: tuple[TreeHead, bytes] | None = None
        self._made: Cosignature | None = None
        self.waiting: Cosignature | None = None
        """What the next Follow takes along."""
        self._count(list(self._covering))

    # --- asked -------------------------------------------------------------------------------------------------------

    @property
    def covered(self) -> int:
        """Entries that a majority of the witnesses cosigned, as it was verified here."""
        return self._covered(self._ports.mirror.state)

    def standing(self, record: RoundRecord) -> Standing:
        """Whether this round may be acted on, under the witnesses of the newest roster."""
        state, opening = self._ports.mirror.state, record.place.index
        sizes, witnesses = self._counted(state), len(witnesses_of(state))
        cosigned = sum(size > opening for size in sizes.values())
        return Standing(opening, cosigned, witnesses, may_act(opening, covered_size(sizes, witnesses), witnesses))

    def checkpoint_for(self, opening: int) -> str | None:
        """The newest checkpoint that this copy bears out, signed by the log alone, if its tree holds entry `opening`."""
        newest = self._seen.newest
        return newest.note.encode().decode() if newest is not None and newest.head.size > opening else None

    @property
    def newest_note(self) -> bytes:
        """The newest checkpoint that this copy bears out, signed by the log alone; empty where there is none."""
        newest = self._seen.newest
        return newest.note.encode() if newest is not None else b""

    @property
    def newest_size(self) -> int:
        """Its entries."""
        newest = self._seen.newest
        return newest.head.size if newest is not None else 0

    @property
    def ahead(self) -> tuple[bytes, ...]:
        """The largest checkpoint of more entries than this copy has, if one was seen."""
        largest = self._seen.largest_ahead
        return (largest.note.encode(),) if largest is not None else ()

    @property
    def seen_size(self) -> int:
        """Entries of the largest tree that the log is known to have signed for."""
        largest = self._seen.largest_ahead
        return largest.head.size if largest is not None else self.newest_size

    def expect_one_history(self) -> None:
        """
        Raises:
            TwoHistories: as Checkpoints.expect_one_history; a command may have found them while the daemon runs.
        """
        self._seen.expect_one_history()

    # --- told by the follower ----------------------------------------------------------------------------------------

    def sent(self, cosignature: Cosignature) -> None:
        """The coordinator has taken it, or refused it: the same checkpoint is not cosigned again."""
        if self.waiting == cosignature:
            self.waiting = None

    def cut_off(self) -> None:
        """The coordinator may have been restarted, and holds cosignatures in memory: the newest goes once more."""
        self.waiting = self._made

    def heard(self, entries: LedgerEntries) -> bool:
        """Judge what came beside entries that the mirror holds by now; whether it told anything new.

        Raises:
            TwoHistories: what the log signed is not this copy's history, or goes back behind what it signed before. The note
                is kept.
            BadSignature, MalformedStatement: a note is damaged, or not the log's; it counts for nothing.
        """
        try:
            return self._judged(entries)
        finally:
            self._seen.settle()

    def _judged(self, entries: LedgerEntries) -> bool:
        """As `heard`; the newest checkpoint waits to be kept together with what else is."""
        self._seen.never_shorter(entries.ledger_size, entries.checkpoint)
        news, found = self._seen.catch_up(), list[Checkpoint]()
        if entries.checkpoint:
            checkpoint = self._seen.bare(self._seen.read(entries.checkpoint))
            news |= self._seen.compare(checkpoint)
            found += self._cosign(checkpoint)
        cosigned = [self._seen.read(note) for note in entries.cosigned]
        found += [each for each in cosigned if self._seen.is_own_history(each)]
        return self._count(found) or news

    # --- cosigning ---------------------------------------------------------------------------------------------------

    def _cosign(self, found: Checkpoint) -> list[Checkpoint]:
        """The checkpoint with the own cosignature, where this is a witness whose copy has exactly that head; once."""
        ports, state = self._ports, self._ports.mirror.state
        if ports.catching_up():
            return []
        witness = witnesses_of(state).get(ports.institution)
        if witness is None or found.head != ports.mirror.head() or self._signed == (found.head, witness.id):
            return []
        try:
            key = ports.key()
        except CoordinatorUnreachable:
            return []  # a new key was offered: the roster that names it brings another checkpoint
        if key.public != witness.key:
            return []
        note = cosign(found.note, witness.name, key, seconds=int(ports.clock.now().timestamp()))
        self.waiting = self._made = Cosignature(found.head.size, note.signatures[-1].signature)
        self._signed = found.head, witness.id
        log.debug("checkpoint cosigned", extra={"size": found.head.size})
        return [replace(found, note=note)]

    # --- counting ----------------------------------------------------------------------------------------------------

    def _count(self, found: list[Checkpoint]) -> bool:
        """Take in cosigned checkpoints of the own history; whether witnesses are further than was known.

        What shows how far they are is durable before it counts, and what a round of ours was waiting for is kept for ever.

        Raises:
            BadSignature: a witness's cosignature does not verify.
        """
        state = self._ports.mirror.state
        if not found and state.roster is self._counted_under:
            return False
        witnesses, before = witnesses_of(state), self._covered(state)
        kept = self._covering
        if state.roster is not self._counted_under:
            kept = tuple(_under(each, witnesses) for each in kept)
        largest: dict[str, Checkpoint] = {}
        for each in self._merged((*kept, *found), witnesses):
            largest |= dict.fromkeys(cosigners(each.note, witnesses), each)  # ascending by size: the last one stays
        covering = tuple(sorted({each.head.size: each for each in largest.values()}.values(), key=by_size))
        covered = covered_size({name: each.head.size for name, each in largest.items()}, len(witnesses))
        kept_now: dict[CheckpointKind, Iterable[Checkpoint]] = {}
        if covering != self._covering:
            kept_now["covering"] = covering
        openings = [each for each in self._own_openings(state) if before <= each < covered]
        if openings:
            kept_now["cosigned"] = [each for each in covering if each.head.size > min(openings)]
        if kept_now:
            self._seen.keep_together(kept_now)
        sizes = {_whole(witnesses[name]): each.head.size for name, each in largest.items()}
        news = sizes != self._sizes
        self._covering, self._sizes, self._counted_under = covering, sizes, state.roster
        if covered > before:
            self._ports.mirror.wake()
        return news

    def _merged(self, found: Iterable[Checkpoint], witnesses: Mapping[str, NoteKey]) -> list[Checkpoint]:
        """One checkpoint a size, ascending, with what the log and today's witnesses signed, and nothing else."""
        known = {(key.name, key.id) for key in witnesses.values()}
        merged: dict[int, Checkpoint] = {}
        for each in found:
            into = merged.get(each.head.size, self._seen.bare(each))
            for signature in each.note.signatures:
                if (signature.name, signature.key_id) in known:
                    into = replace(into, note=into.note.with_signature(signature))
            merged[each.head.size] = into
        return sorted(merged.values(), key=by_size)

    def _counted(self, state: LedgerState) -> dict[str, int]:
        """The largest tree that each witness of this state's roster cosigned, under the key that it names."""
        sizes = self._sizes
        keys = {institution: _whole(key) for institution, key in witnesses_of(state).items()}
        return {institution: sizes[key] for institution, key in keys.items() if key in sizes}

    def _covered(self, state: LedgerState) -> int:
        return covered_size(self._counted(state), len(witnesses_of(state)))

    def _own_openings(self, state: LedgerState) -> list[int]:
        """Where the open rounds stand that this institution is asked to."""
        records = [run.open_round for run in state.active_runs]
        return [each.place.index for each in records if each and self._ports.institution in each.opened.cohort]


def _whole(key: NoteKey) -> tuple[str, str]:
    """What a witness's word is kept under. Not the key's id: four bytes, which whoever rotates can choose again."""
    return key.name, key.key.public


def _under(kept: Checkpoint, witnesses: Mapping[str, NoteKey]) -> Checkpoint:
    """What was verified under the keys of an older roster, with what still verifies under these."""
    void = set()
    for institution, key in witnesses.items():
        try:
            cosigners(kept.note, {institution: key})
        except BadSignature:
            void.add((key.name, key.id))
    signatures = tuple(each for each in kept.note.signatures if (each.name, each.key_id) not in void)
    return replace(kept, note=replace(kept.note, signatures=signatures))
