"""An honest run that witnesses watched, and ledgers that were made from it: rewritten, cut, re-signed, forked.

    scene = Scene(tmp_path / "coordinator")                     # a run of two rounds; four witnesses; a rotated key
    entries = scene.rewritten(change)                           # carried forward by everything that the coordinator may sign
    scene.failures(entries, notes=scene.notes)                  # what a reader who kept the checkpoints finds

A coordinator can sign everything that is its own, and nothing of an institution. So a change is carried forward as far as it
goes: each later statement of the coordinator's names the new digests, each of an institution stays as it was signed, unless the
institution plays along (`colluding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.identity.keys import SigningKey
from common.ledger.heads import tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, checkpoint_text, cosign, sign_note
from common.statements.envelope import Parent, Statement, UnverifiedStatement, parse, sign
from common.statements.kinds import Predicate, Roster, RoundClosed, RoundOpened, signing_institution
from common.verify.material import Material, Own
from common.verify.report import Finding, Outcome, Report
from common.verify.verify import verify
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.participants import RUN, FakeParticipant

Change = Callable[[UnverifiedStatement], Predicate | None]
"""What a statement says instead; None: it is left out."""

WITNESSES = ("east", "north", "south", "west")
STEP_SECONDS = 1000.0


@dataclass(frozen=True)
class Seen:
    """A moment at which witnesses cosigned: how many entries, when, and who."""

    size: int
    seconds: int
    by: Mapping[str, SigningKey]


def witness_name(institution: str) -> str:
    """The name under which a member cosigns."""
    return f"{CONSORTIUM}.llmasos/{institution}"


class Scene:
    """Two training rounds and an evaluation; every round's opening cosigned by all witnesses before anybody acts on it.

    The run is paused and resumed in round 1, and `south` rotates its signing key in round 2.
    """

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder, names=())
        for name in WITNESSES:
            self.coordinator.enrol(name, roles=("trainer", "evaluator", "witness"))
        self.log_key = SigningKey.load(self.coordinator.layout.log_key)
        self.retired = self.coordinator["south"].key
        self.seen: list[Seen] = []
        self._play()
        self.entries = self.coordinator.envelopes()
        self.notes = self.notes_of(self.entries)
        self.genesis = self.coordinator.state.genesis
        self.fingerprint = self.coordinator.state.genesis_place.digest
        self.run = self.coordinator.run

    def close(self) -> None:
        self.coordinator.close()

    # --- the honest run ------------------------------------------------------------------------------------------------

    def _play(self) -> None:
        coordinator = self.coordinator
        coordinator.start_run(rounds=2, quorum=2)
        for participant in coordinator.participants.values():
            participant.answer()
        while coordinator.run.ended is None:
            coordinator.clock.advance(seconds=STEP_SECONDS)
            coordinator.advance()
            current = coordinator.run.open_round
            if current is None:
                continue
            self.look()
            if current.number == 1:
                coordinator.desk.control_run(RUN, "pause", "operator")
                coordinator.desk.control_run(RUN, "resume", "operator")
            if current.number == 2:
                self._rotate("south")
            self.look()
            for participant in coordinator.participants.values():
                participant.contribute(checkpoint=self.checkpoint())
            coordinator.clock.advance(seconds=STEP_SECONDS)
            self.look()
        self.look()

    def _rotate(self, name: str) -> None:
        state, participant = self.coordinator.state, self.coordinator[name]
        assert state.roster is not None
        assert state.roster_place is not None
        participant.key = SigningKey.generate()
        changed = {name: participant.member.model_copy(update={"signing_key": participant.key.public})}
        members = tuple(changed.get(each.name, each) for each in state.roster.members)
        roster = Roster(version=state.roster.version + 1, members=members)
        self.coordinator.append(roster, state.roster_place.digest)

    def look(self) -> None:
        """All witnesses cosign what there is now."""
        keys = {name: self.coordinator[name].key for name in WITNESSES}
        self.seen.append(Seen(self.coordinator.state.size, int(self.coordinator.clock.now().timestamp()), keys))

    # --- what the log and witnesses sign -------------------------------------------------------------------------------

    def checkpoint(self, size: int | None = None) -> str:
        """The log's signature alone, over what there is now."""
        return self.note(self.coordinator.envelopes(), size).encode().decode()

    def note(self, entries: Sequence[bytes], size: int | None = None) -> Note:
        """A checkpoint of these entries, true or not, under the log's key."""
        origin = self.coordinator.state.genesis.log.origin
        head = tree_of(entries).head(size)
        return sign_note(Note(checkpoint_text(origin, TreeHead(head.size, head.root))), origin, self.log_key)

    def notes_of(self, entries: Sequence[bytes], *, only: Sequence[str] = WITNESSES) -> list[bytes]:
        """What witnesses who looked at these entries, at the same times as they did in truth, would have cosigned."""
        return [self.cosigned(entries, min(each.size, len(entries)), each, only) for each in self.seen]

    def cosigned(self, entries: Sequence[bytes], size: int, seen: Seen, only: Sequence[str] = WITNESSES) -> bytes:
        note = self.note(entries, size)
        for name, key in seen.by.items():
            if name in only:
                note = cosign(note, witness_name(name), key, seconds=seen.seconds)
        return note.encode()

    # --- what is made from it ------------------------------------------------------------------------------------------

    def rewritten(self, change: Change, *, colluding: Mapping[str, SigningKey] | None = None) -> list[bytes]:
        """The ledger with that change, carried forward by everything that the coordinator, and who colludes, may sign."""
        renamed: dict[str, str] = {}
        entries: list[bytes] = [self.entries[0]]
        for envelope in self.entries[1:]:
            statement = parse(envelope)
            said = change(statement)
            if said is None:
                continue
            signer = signing_institution(statement.predicate)
            key = self.coordinator_key if signer is None else (colluding or {}).get(signer)
            if key is None:
                entries.append(envelope)
                continue
            parent = Parent(statement.parent.kind, renamed.get(statement.parent.digest, statement.parent.digest))
            made = self._again(statement, _with_new_names(said, renamed), parent, key)
            renamed[statement.digest] = made.digest
            entries.append(made.envelope)
        return entries

    def _again(
        self, before: UnverifiedStatement, said: Predicate, parent: Parent, key: SigningKey
    ) -> UnverifiedStatement | Statement:
        unchanged = (before.predicate, before.parent) == (said, parent)
        return before if unchanged else sign(said, parent=parent, key=key)

    @property
    def coordinator_key(self) -> SigningKey:
        return SigningKey.load(self.coordinator.layout.statement_key)

    def keys(self) -> dict[str, SigningKey]:
        """Every institution's newest key: all of them collude."""
        return {name: self.coordinator[name].key for name in WITNESSES}

    def index(self, wanted: Callable[[UnverifiedStatement], bool]) -> int:
        """Where the first such statement stands."""
        return next(index for index, each in enumerate(self.entries) if wanted(parse(each)))

    def __getitem__(self, name: str) -> FakeParticipant:
        return self.coordinator[name]

    # --- what a reader finds -------------------------------------------------------------------------------------------

    def material(self, entries: Sequence[bytes] | None = None, **changes: Any) -> Material:
        fields: dict[str, Any] = {
            "envelopes": self.entries if entries is None else entries,
            "blobs": self.coordinator.blobs,
            "fingerprint": self.fingerprint,
            "checkpoints": self.notes,
        }
        return Material(**fields | changes)

    def own(self, name: str, *, without: int | None = None, **changed: str) -> Own:
        """What that institution's journal says that it signed; but for one round, or with another digest."""
        signed = {
            f"contribution/{record.place.digest}": record.contributions[name].place.digest
            for record in self.run.rounds
            if record.number != without
        }
        return Own(name, signed | changed)


def failures(material: Material) -> list[tuple[str, Finding]]:
    """Every failed finding, under the name of its check."""
    return failed_in(verify(material))


def failed_in(report: Report) -> list[tuple[str, Finding]]:
    return [
        (check.name, finding)
        for check in report.checks
        for finding in check.findings
        if finding.outcome is Outcome.FAILED
    ]


def _with_new_names(predicate: Predicate, renamed: Mapping[str, str]) -> Predicate:
    if isinstance(predicate, RoundOpened) and predicate.roster in renamed:
        return predicate.model_copy(update={"roster": renamed[predicate.roster]})
    if isinstance(predicate, RoundClosed):
        inputs = tuple(
            each.model_copy(update={"contribution": renamed.get(each.contribution, each.contribution)})
            for each in predicate.inputs
        )
        return predicate.model_copy(update={"inputs": inputs})
    return predicate
