"""A coordinator that holds less than was signed for signs nothing, takes back what institutions saw, and goes on by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import (
    BadSignature,
    CoordinatorRecovering,
    LLMasOSError,
    MalformedMessage,
    NotAuthorised,
)
from common.identity.keys import SigningKey
from common.ledger.notes import Note, NoteSignature, parse_note
from common.wire.messages import Presented
from coordinator.commands.verifying import verified
from coordinator.ports import UploadPurpose
from coordinator.rounds.phases import Phase
from tests.support.blobs import leaves_and_ref
from tests.support.coordinators import LEASE_SECONDS, Coordinator
from tests.support.keepers import Keeper, backed_up, moved_to, restored
from tests.support.participants import RUN

NAMES = ("east", "north", "south")


def play_rounds(coordinator: Coordinator, count: int) -> None:
    for _ in range(count):
        for participant in coordinator.participants.values():
            participant.act()
        coordinator.advance()


def models(coordinator: Coordinator) -> list[str]:
    return [record.closed.outputs.model.root for record in coordinator.run.rounds if record.closed]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[list[str]]:
    other = Coordinator(tmp_path / "undisturbed")
    other.open_round(rounds=4)
    other.play()
    yield models(other)
    other.close()


class Scene:
    """A run in round 2, of which a backup from round 1 exists; all institutions saw everything."""

    def __init__(self, coordinator: Coordinator, folder: Path, **plan: object) -> None:
        self.coordinator, self.folder = coordinator, folder
        self.keepers = {name: Keeper(coordinator, name, folder) for name in NAMES}
        coordinator.open_round(rounds=4, **plan)
        self.backup, self.then = backed_up(coordinator, folder / "backup"), coordinator.state.size
        play_rounds(coordinator, 1)
        coordinator["east"].contribute()
        for keeper in self.keepers.values():
            keeper.follow()
        self.size, self.envelopes = coordinator.state.size, coordinator.envelopes()

    def restore(self) -> None:
        moved_to(self.coordinator, restored(self.backup, self.folder / "new"))

    def close(self) -> None:
        for keeper in self.keepers.values():
            keeper.close()


@pytest.fixture
def scene(coordinator: Coordinator, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(coordinator, tmp_path)
    yield made
    made.close()


def assert_signs_nothing(coordinator: Coordinator) -> None:
    before = coordinator.state.size
    coordinator.advance()
    with pytest.raises(CoordinatorRecovering):
        coordinator.log.newest()
    with pytest.raises(CoordinatorRecovering):
        coordinator.desk.control_run(RUN, "pause", "operator")
    with pytest.raises(CoordinatorRecovering):
        coordinator["north"].contribute()
    with pytest.raises(CoordinatorRecovering):
        coordinator.recovery.expect_following("north", 0)
    assert coordinator.state.size == before


def test_what_institutions_saw_is_taken_back_and_the_run_goes_on_with_the_same_bits(
    scene: Scene, undisturbed: list[str]
) -> None:
    scene.restore()
    coordinator = scene.coordinator
    assert coordinator.state.size == scene.then < scene.size
    assert_signs_nothing(coordinator)
    assert scene.keepers["east"].hand_back() is False, "north and south have not said yet what they saw"
    assert coordinator.envelopes() == scene.envelopes
    assert_signs_nothing(coordinator)
    assert "it waits for north to present what it saw; south to present" in coordinator.recovery.waits_for()
    scene.keepers["north"].hand_back()
    assert scene.keepers["south"].hand_back() is True
    assert not coordinator.recovery.pending
    assert coordinator.engine.state_of(coordinator.run).phase is Phase.COLLECTING
    assert [name for name, keeper in scene.keepers.items() if coordinator.run.model in keeper.session.uploaded] == [
        "east"
    ], "one is asked for a blob, not all at once"
    coordinator.play()
    assert models(coordinator) == undisturbed
    report = verified(coordinator.layout)
    assert [
        finding.text for check in report.checks for finding in check.findings if finding.outcome.value == "failed"
    ] == []


def test_it_goes_on_after_a_lease_with_a_majority_and_never_without(scene: Scene) -> None:
    scene.restore()
    coordinator, clock = scene.coordinator, scene.coordinator.clock
    scene.keepers["east"].hand_back()
    clock.advance(seconds=LEASE_SECONDS + 1)
    scene.keepers["east"].hand_back()
    coordinator.advance()
    assert coordinator.recovery.pending
    assert "2 of 3 witnesses or institutions to present, of whom 1 have" in coordinator.recovery.waits_for()
    scene.keepers["north"].hand_back()
    assert not coordinator.recovery.pending, "south was silent for a lease, and two of three are a majority"


def test_metrics_of_contributions_come_back_with_their_institutions(coordinator: Coordinator, tmp_path: Path) -> None:
    scene = Scene(coordinator, tmp_path, metrics_visibility="institution")
    try:
        before = coordinator.database.metrics(RUN)
        assert len(before) == 4
        scene.restore()
        for keeper in scene.keepers.values():
            keeper.hand_back()
        own = coordinator.run.rounds[1].contributions["east"].place.digest
        assert coordinator.database.metrics(RUN)[own] == before[own]
    finally:
        scene.close()


def test_a_database_put_back_by_hand_is_found_by_what_was_signed(scene: Scene, undisturbed: list[str]) -> None:
    """No note of `restore`: log.head shows it at the start."""
    coordinator, home = scene.coordinator, scene.coordinator.layout.home
    scratch = restored(scene.backup, scene.folder / "old")
    coordinator.close()
    shutil.copy(scratch.state, home / "state.sqlite")
    for rest in home.glob("state.sqlite-*"):
        rest.unlink()
    coordinator._open()
    assert_signs_nothing(coordinator)
    assert f"log.head shows that {scene.size:,} were signed for" in coordinator.recovery.waits_for()
    for keeper in scene.keepers.values():
        keeper.hand_back()
    assert not coordinator.recovery.pending
    coordinator.play()
    assert models(coordinator) == undisturbed


def rolled_back_unnoticed(scene: Scene) -> Coordinator:
    """A disk of earlier: neither log.head nor a note says that more was signed."""
    layout = restored(scene.backup, scene.folder / "disk")
    (layout.home / "restored.json").unlink()
    moved_to(scene.coordinator, layout)
    assert not scene.coordinator.recovery.pending
    return scene.coordinator


def test_whoever_presents_a_checkpoint_beyond_the_ledger_stops_all_signing_at_once(
    scene: Scene, undisturbed: list[str]
) -> None:
    coordinator = rolled_back_unnoticed(scene)
    with pytest.raises(CoordinatorRecovering, match=f"north knows of {scene.size:,}: it is to present them"):
        coordinator.recovery.expect_following("north", scene.size)
    assert not coordinator.recovery.pending, "whatever somebody says without a signature stops nobody else"
    scene.keepers["north"].session.present(Presented(scene.keepers["north"].witnessing.newest_note))
    assert_signs_nothing(coordinator)
    coordinator.restart()
    assert_signs_nothing(coordinator)
    for keeper in scene.keepers.values():
        keeper.hand_back()
    assert not coordinator.recovery.pending
    coordinator.play()
    assert models(coordinator) == undisturbed


def test_a_contribution_from_beyond_the_ledger_is_not_refused_in_ignorance(scene: Scene) -> None:
    north, note = scene.coordinator["north"], scene.keepers["north"].witnessing.newest_note.decode()
    statement = north.contribution(north.send(north.delta()), checkpoint=note)
    coordinator = rolled_back_unnoticed(scene)
    with pytest.raises(CoordinatorRecovering, match="north saw"):
        north.submit(statement)
    assert coordinator.refusals() == []


def test_a_coordinator_that_signed_something_else_meanwhile_stops(scene: Scene) -> None:
    coordinator = rolled_back_unnoticed(scene)
    coordinator.desk.control_run(RUN, "pause", "operator")
    keeper = scene.keepers["north"]
    with pytest.raises(MalformedMessage, match=r"are not of the checkpoint of \d+ entries"):
        keeper.hand_back()
    assert_signs_nothing(coordinator)
    assert coordinator.state.size == scene.then + 1, "nothing of the other history was taken in"


def test_a_checkpoint_of_another_history_stops_all_signing(scene: Scene) -> None:
    note = parse_note(scene.keepers["north"].witnessing.newest_note)
    coordinator = rolled_back_unnoticed(scene)
    while coordinator.state.size <= scene.size:
        coordinator.desk.control_run(RUN, "resume" if coordinator.run.paused else "pause", "operator")
        coordinator.clock.advance(seconds=1)
    scene.keepers["north"].session.present(Presented(note.encode()))
    assert "two histories were signed" in coordinator.recovery.waits_for()
    assert_signs_nothing(coordinator)


# --- lies ------------------------------------------------------------------------------------------------------------


def forged(scene: Scene) -> Presented:
    """A checkpoint under another key than the log's."""
    note = parse_note(scene.keepers["north"].witnessing.newest_note)
    line = note.signatures[0]
    wrong = NoteSignature(line.name, line.key_id, SigningKey.generate().sign(note.text.encode()))
    return Presented(Note(note.text, (wrong,)).encode())


def batch(scene: Scene) -> Presented:
    """What north would bring first."""
    keeper = scene.keepers["north"]
    wanted = keeper.session.present(Presented(keeper.witnessing.newest_note))
    brought = keeper.handing_back._brought(wanted)
    assert brought is not None
    assert len(brought.envelopes) > 2
    return brought


LIES = {
    "a forged checkpoint": (forged, BadSignature, "is not one by key"),
    "an entry left out": (
        lambda scene: replace(batch(scene), envelopes=batch(scene).envelopes[1:]),
        MalformedMessage,
        "are not of the checkpoint",
    ),
    "an own statement put in": (
        lambda scene: replace(
            batch(scene), envelopes=(scene.coordinator["north"].an_answer().envelope, *batch(scene).envelopes[1:])
        ),
        MalformedMessage,
        "are not of the checkpoint",
    ),
    "no proof": (
        lambda scene: replace(batch(scene), envelopes=batch(scene).envelopes[:2], consistency=()),
        MalformedMessage,
        "too few",
    ),
    "entries from the middle": (
        lambda scene: replace(batch(scene), first_index=batch(scene).first_index + 1),
        MalformedMessage,
        "expected entries from",
    ),
    "more than the checkpoint has": (
        lambda scene: replace(batch(scene), envelopes=(*batch(scene).envelopes, b"{}")),
        MalformedMessage,
        "expected entries from",
    ),
    "too many bytes": (
        lambda scene: replace(batch(scene), envelopes=(b"x" * 2**20,) * 3),
        MalformedMessage,
        "expected at most 2,097,152 bytes together",
    ),
    "too many entries": (
        lambda scene: replace(batch(scene), envelopes=(b"x",) * 513),
        MalformedMessage,
        "expected at most 512 elements",
    ),
    "a checkpoint too long": (lambda scene: Presented(b"x" * 5000), MalformedMessage, "expected 0 to 4,096 bytes"),
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_is_taken_of_a_lie_and_others_recover_it_all_the_same(scene: Scene, lie: str) -> None:
    make, error, text = LIES[lie]
    scene.restore()
    coordinator = scene.coordinator
    with pytest.raises(error, match=text):
        scene.keepers["north"].session.present(make(scene))  # type: ignore[no-untyped-call]
    assert coordinator.state.size == scene.then
    for keeper in scene.keepers.values():
        keeper.hand_back()
    assert coordinator.envelopes() == scene.envelopes
    assert not coordinator.recovery.pending


def test_a_forged_checkpoint_holds_up_nobody(scene: Scene) -> None:
    coordinator = scene.coordinator
    with pytest.raises(BadSignature):
        scene.keepers["north"].session.present(forged(scene))
    assert not coordinator.recovery.pending
    assert scene.keepers["north"].session.present(Presented(b"")).recovering is False


def test_blobs_that_nobody_asked_for_are_refused(scene: Scene) -> None:
    coordinator = scene.coordinator
    purpose, member = UploadPurpose(recovery=True), coordinator["north"].member
    model = coordinator.run.model
    for ref in (model, leaves_and_ref(b"anything")[1]):
        with pytest.raises(NotAuthorised, match="which nobody asked it for"):
            coordinator.access.check_write(member, ref, purpose)
    scene.restore()
    scene.keepers["east"].hand_back()
    with pytest.raises(NotAuthorised, match="which nobody asked it for"):
        coordinator.access.check_write(coordinator["north"].member, model, purpose)


def test_metrics_that_are_not_those_of_the_commitment_are_refused(coordinator: Coordinator, tmp_path: Path) -> None:
    scene = Scene(coordinator, tmp_path, metrics_visibility="institution")
    try:
        scene.restore()
        east = scene.keepers["east"]
        for name in ("north", "south"):
            scene.keepers[name].hand_back()
        wanted = east.session.present(Presented(east.witnessing.newest_note))
        ((digest, record),) = east.handing_back._metrics(wanted.metrics)
        lie = Presented(east.witnessing.newest_note, metrics=((digest, replace(record, salt=bytes(32))),))
        with pytest.raises(LLMasOSError, match="do not give the commitment"):
            east.session.present(lie)
        assert digest not in coordinator.database.metrics(RUN)
    finally:
        scene.close()
