"""A coordinator that shows its institutions two histories: who acts, who stops, what proves it, and what nobody can see.

Real participants' parts (mirror, journal, witnessing) on either side; the fork is one opening of round 1 with two deadlines, or
two ends of one run. Both follow by every rule and bear every signature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import parse_rfc3339, rfc3339
from common.errors import LedgerConflict, TwoHistories
from common.identity.keys import SigningKey
from common.ledger.notes import COSIGNATURE, NoteKey, NoteSignature
from common.statements.envelope import UnverifiedStatement, parse, sign
from common.statements.kinds import Contribution, Predicate, RoundClosed, RoundOpened
from common.verify.material import Material
from common.verify.report import NOT_PROVEN, Outcome
from common.verify.text import as_text
from common.verify.verify import verify
from common.wire.messages import LedgerEntries
from participant.memory.checkpoints import Checkpoints
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.cheats import WITNESSES, Scene, failures, witness_name
from tests.support.coordinators import Coordinator


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("two-histories") / "coordinator")
    yield made
    made.close()


class Institution:
    """One that follows what it is shown, cosigns it, and knows whether it may act."""

    def __init__(self, scene: Scene, name: str, folder: Path) -> None:
        self.name, self._scene = name, scene
        self.key: SigningKey = scene.retired if name == "south" else scene[name].key
        self.journal = Journal(folder / f"{name}.sqlite")
        self.mirror = Mirror(self.journal, scene.entries[0])
        clock = scene.coordinator.clock
        self.witnessing = Witnessing(WitnessingPorts(name, self.mirror, self.journal, lambda: self.key, clock))
        self.checkpoints = Checkpoints(self.mirror, self.journal, clock)

    def follow(self, entries: Sequence[bytes], cosigned: Sequence[bytes] = (), *, checkpoint: bytes = b"") -> None:
        """A reply of Follow: what is new, the newest checkpoint, and what a majority cosigned."""
        first = self.mirror.state.size
        if entries[first:]:
            self.mirror.admit(first, entries[first:])
        newest = checkpoint or self._scene.note(entries).encode()
        self.witnessing.heard(LedgerEntries(first, tuple(entries[first:]), len(entries), (), newest, tuple(cosigned)))

    @property
    def cosignature(self) -> NoteSignature:
        """What its next Follow takes along."""
        assert self.witnessing.waiting is not None
        name = NoteKey(witness_name(self.name), self.key.public, COSIGNATURE)
        return NoteSignature(name.name, name.id, self.witnessing.waiting.signature)

    def may_act(self) -> bool:
        (run,) = self.mirror.state.active_runs
        assert run.open_round is not None
        return self.witnessing.standing(run.open_round).may_act

    def meets(self, checkpoint: bytes) -> None:
        """What `checkpoint compare FILE` does."""
        self.checkpoints.is_own_history(self.checkpoints.read(checkpoint))


def openings(scene: Scene) -> tuple[list[bytes], list[bytes]]:
    """Two ledgers that are one up to the opening of round 1, whose deadlines differ."""
    first = scene.run.rounds[0].place.index
    statement = parse(scene.entries[first])
    assert isinstance(statement.predicate, RoundOpened)
    stage = statement.predicate.stages[0]
    later = rfc3339(parse_rfc3339(stage.deadline) + timedelta(seconds=1))
    said = statement.predicate.model_copy(update={"stages": (stage.model_copy(update={"deadline": later}),)})
    other = sign(said, parent=statement.parent, key=scene.coordinator_key)
    return scene.entries[: first + 1], [*scene.entries[:first], other.envelope]


def shown(scene: Scene, names: Sequence[str], entries: Sequence[bytes], folder: Path) -> list[Institution]:
    """These follow that history and cosign it, and are told of each other's cosignatures: all that the coordinator can do."""
    half = [Institution(scene, name, folder) for name in names]
    note = scene.note(entries)
    for institution in half:
        institution.follow(entries)
        note = note.with_signature(institution.cosignature)
    for institution in half:
        institution.follow(entries, [note.encode()])
    return half


SPLITS = {
    "two and two: nobody has a majority, nobody acts": (("east", "north"), ("south", "west"), (False, False)),
    "three and one: the three act, the one never does": (("east", "north", "south"), ("west",), (True, False)),
}


@pytest.mark.parametrize("claim", SPLITS)
def test_two_halves_that_are_shown_two_histories_do_not_both_act(scene: Scene, claim: str, tmp_path: Path) -> None:
    here, there, acting = SPLITS[claim]
    one, other = openings(scene)
    halves = (shown(scene, here, one, tmp_path), shown(scene, there, other, tmp_path))
    assert tuple({each.may_act() for each in half} for half in halves) == tuple({each} for each in acting)
    for half, foreign in zip(halves, (other, one), strict=True):
        for institution in half:
            with pytest.raises(TwoHistories, match="signed two histories of 12 entries"):
                institution.meets(scene.note(foreign).encode())
            kept = institution.journal.conflicting()
            ((name, finding), *_) = failures(scene.material(institution.journal.ledger(), checkpoints=kept))
            assert (name, finding.leaf, finding.signer) == ("witnesses", 11, "log")


def test_a_witness_that_saw_one_history_cosigns_no_other(scene: Scene, tmp_path: Path) -> None:
    """Shown the other one after its own, it stops; so a second majority needs witnesses that lie."""
    one, other = openings(scene)
    (north,) = shown(scene, ("north",), one, tmp_path)
    waiting = north.witnessing.waiting
    with pytest.raises(TwoHistories, match="signed two histories of 12 entries"):
        north.follow(one, checkpoint=scene.note(other).encode())
    assert north.witnessing.waiting == waiting
    with pytest.raises(LedgerConflict):
        north.mirror.admit(12, [other[-1]])


def test_an_old_checkpoint_that_is_replayed_stops_the_participant(scene: Scene, tmp_path: Path) -> None:
    one, _ = openings(scene)
    (north,) = shown(scene, ("north",), one, tmp_path)
    with pytest.raises(TwoHistories, match="went back: its checkpoint has 8 entries"):
        north.follow(one, checkpoint=scene.note(one, 8).encode())


# --- the partition that nobody can detect -------------------------------------------------------------------------------


def without_west_at_the_end(statement: UnverifiedStatement) -> Predicate | None:
    """The last round was closed without west's measurement, on which no signature but the coordinator's rests."""
    said = statement.predicate
    if isinstance(said, Contribution) and (said.institution, said.round) == ("west", 3):
        return None
    if isinstance(said, RoundClosed) and said.round == 3:
        return said.model_copy(update={"inputs": tuple(each for each in said.inputs if each.institution != "west")})
    return said


def cosigned_by_liars(scene: Scene, entries: list[bytes], names: Sequence[str]) -> list[bytes]:
    """Witnesses who sign whatever they are given, at the times at which they should have looked."""
    return scene.notes_of(entries, only=names)


@pytest.mark.parametrize("liars", [WITNESSES, ("east", "north", "south")], ids=["all", "three of four"])
def test_the_partition_that_nobody_can_detect_is_detected_once_checkpoints_meet(
    scene: Scene, liars: Sequence[str]
) -> None:
    """Two groups that never compare, and witnesses of whom more than half cosign both: each verifies its own, without a gap.

    Nothing in either ledger is wrong, so nothing here could find it. The report says so; and one checkpoint of the other group
    is enough.
    """
    one, other = scene.entries, scene.rewritten(without_west_at_the_end)
    materials = [scene.material(each, checkpoints=cosigned_by_liars(scene, each, liars)) for each in (one, other)]
    reports = [verify(each) for each in materials]
    assert [report.outcome for report in reports] == [Outcome.VERIFIED, Outcome.VERIFIED], as_text(reports[1])
    assert reports[0].root != reports[1].root
    for report in reports:
        assert " ".join(NOT_PROVEN.split()) in " ".join(as_text(report).split())
        assert "more than half of the witnesses cosign both" in report.as_json()["not_proven"]
    for mine, theirs in (materials, materials[::-1]):
        meeting = [*mine.checkpoints, *theirs.checkpoints[-2:]]
        found = failures(scene.material(mine.envelopes, checkpoints=meeting))
        assert {(name, finding.signer) for name, finding in found} == {("witnesses", "log")}
        assert found[0][1].text.startswith("The log signed two histories of ")
        assert f"cosigned by {', '.join(sorted(liars))}" in found[0][1].text
        assert found[0][1].expected != found[0][1].got


def test_without_witnesses_two_histories_need_nobody_but_the_coordinator(scene: Scene) -> None:
    """Nobody is asked, so nobody is missed: the report says that two histories could be shown."""
    alone = Coordinator(scene.coordinator.layout.home.parent / "alone")
    alone.start_run(rounds=1)
    alone.play()
    report = verify(Material(alone.envelopes(), alone.blobs, alone.state.genesis_place.digest))
    alone.close()
    assert report.outcome is Outcome.VERIFIED
    (check,) = [each for each in report.checks if each.name == "witnesses"]
    assert "at 2 of 2 rounds nobody was a witness: two histories could be shown" in check.examined
