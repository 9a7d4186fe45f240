"""Entries that nobody holds: a new lineage by an operator's word, followed by each institution's own word alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import CoordinatorRecovering, NewLineage, StatementError, UsageError
from common.identity.keys import SigningKey
from common.ledger.heads import log_key, signed_checkpoint, tree_of
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.rules import admit, start
from common.statements.envelope import Parent, sign
from common.statements.kinds import Control
from common.verify.material import Material
from common.verify.report import Outcome
from common.verify.verify import verify
from common.wire.messages import Presented
from coordinator.app import load_config
from coordinator.recovery.new_lineage import begin_lineage
from tests.support.coordinators import LEASE_SECONDS, Coordinator
from tests.support.keepers import Keeper, backed_up, moved_to, restored
from tests.support.participants import RUN
from tests.unit.coordinator.recovery.test_recovering import Scene, play_rounds


class Fork:
    """A restored coordinator that only was shown a checkpoint: whoever presented it kept the entries to itself."""

    def __init__(self, coordinator: Coordinator, folder: Path) -> None:
        self.scene, self.coordinator, self.folder = Scene(coordinator, folder), coordinator, folder
        self.scene.restore()
        self.keepers = self.scene.keepers
        self.note = self.keepers["north"].witnessing.newest_note
        self.keepers["north"].session.present(Presented(self.note))
        assert coordinator.recovery.pending

    def begin(self) -> int:
        """What `recover --new-lineage` does, and a start after it; where the lineage begins."""
        coordinator, layout = self.coordinator, self.coordinator.layout
        coordinator.close()
        begun = begin_lineage(layout, load_config(layout.home), coordinator.clock)
        coordinator._open()
        for participant in coordinator.participants.values():
            participant._state = start(coordinator.genesis).state  # they read the ledger anew
        return begun.index


@pytest.fixture
def fork(coordinator: Coordinator, tmp_path: Path) -> Iterator[Fork]:
    made = Fork(coordinator, tmp_path)
    yield made
    made.scene.close()


def accepted(fork: Fork, name: str) -> Keeper:
    """The institution after its decision, and a restart."""
    keeper = fork.keepers[name]
    (offered,) = keeper.journal.lineages()
    keeper.journal.accept_lineage(offered.digest, "2026-11-22T00:00:00.000Z")
    fork.keepers[name] = keeper.reopened(fork.folder)
    return fork.keepers[name]


def test_without_an_operators_word_nothing_is_given_up_however_long_it_takes(fork: Fork) -> None:
    for _ in range(3):
        fork.coordinator.clock.advance(seconds=LEASE_SECONDS + 1)
        fork.coordinator.advance()
        fork.coordinator.restart()
        fork.keepers["south"].session.present(Presented(fork.note))
    assert fork.coordinator.recovery.pending
    assert f"{fork.scene.size:,} were signed for" in fork.coordinator.recovery.waits_for()


def test_the_statement_says_what_is_given_up_and_the_run_goes_on(fork: Fork) -> None:
    begins = fork.begin()
    assert begins == fork.scene.then
    (lineage,) = fork.coordinator.state.lineages
    assert lineage.place.index == begins
    assert lineage.given_up == read_checkpoint(parse_note(fork.note), log_key(fork.coordinator.state.genesis))
    assert not fork.coordinator.recovery.pending
    fork.coordinator.log.newest()
    assert fork.coordinator.play().ended is not None


def test_where_nothing_is_known_to_lack_there_is_no_new_lineage(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator.log.newest()
    coordinator.close()
    with pytest.raises(UsageError, match="no checkpoint beyond them was presented"):
        begin_lineage(coordinator.layout, load_config(coordinator.layout.home), coordinator.clock)
    coordinator._open()


def test_an_institution_that_saw_more_stops_until_it_decides_and_signs_no_slot_again(fork: Fork) -> None:
    north = fork.keepers["north"]
    begins = fork.begin()
    with pytest.raises(NewLineage, match=f"Entry {begins:,} of the ledger begins a new lineage; north saw"):
        fork.coordinator.recovery.expect_following("north", north.mirror.state.size, north.mirror.state.lineage)
    told = north.handing_back.learn_lineage()
    assert isinstance(told, NewLineage)
    assert f"This institution holds {fork.scene.size - begins:,} of those." in told.message
    assert north.mirror.state.size == fork.scene.size, "nothing is given up before a person says so"
    signed = north.journal.all_signed()

    north = accepted(fork, "north")
    assert north.mirror.state.size == begins
    assert north.journal.all_signed() == signed
    north.follow()
    assert north.mirror.state.lineage == begins + 1
    assert north.witnessing.newest_size == fork.coordinator.state.size
    fork.coordinator.recovery.expect_following("north", north.mirror.state.size, north.mirror.state.lineage)


def test_an_institution_that_saw_no_more_does_not_pass_the_statement_by_itself(fork: Fork, tmp_path: Path) -> None:
    begins = fork.begin()
    (tmp_path / "late").mkdir()
    late = Keeper(fork.coordinator, "south", tmp_path / "late")
    with pytest.raises(NewLineage, match="This institution holds 0 of those"):
        late.follow()
    assert late.mirror.state.size == begins
    with pytest.raises(NewLineage):
        late.follow()
    (offered,) = late.journal.lineages()
    late.journal.accept_lineage(offered.digest, "2026-11-22T00:00:00.000Z")
    late = late.reopened(tmp_path / "late")
    late.follow()
    assert late.mirror.state.size == fork.coordinator.state.size
    late.close()


def test_what_was_given_up_holds_up_nobody_afterwards(fork: Fork) -> None:
    """Whoever still holds the old lineage, with genuine signatures, can neither stop the new one nor slip into it."""
    fork.begin()
    north = fork.keepers["north"]
    reply = north.session.present(Presented(fork.note))
    assert (reply.recovering, reply.lineage) == (False, fork.coordinator.state.lineage)
    while fork.coordinator.state.size <= fork.scene.size:
        fork.coordinator.desk.control_run(RUN, "resume" if fork.coordinator.run.paused else "pause", "operator")
        fork.coordinator.clock.advance(seconds=1)
    assert north.session.present(Presented(fork.note)).recovering is False
    assert not fork.coordinator.recovery.pending


def test_a_restore_after_a_new_lineage_recovers_within_it(fork: Fork) -> None:
    fork.begin()
    for name in ("east", "north", "south"):
        fork.keepers[name].handing_back.learn_lineage()
        accepted(fork, name).follow()
    coordinator = fork.coordinator
    backup = backed_up(coordinator, fork.folder / "later")
    play_rounds(coordinator, 1)
    for keeper in fork.keepers.values():
        keeper.follow()
    envelopes = coordinator.envelopes()
    moved_to(coordinator, restored(backup, fork.folder / "again"))
    with pytest.raises(CoordinatorRecovering):
        coordinator.log.newest()
    for keeper in fork.keepers.values():
        keeper.hand_back()
    assert coordinator.envelopes() == envelopes
    assert not coordinator.recovery.pending


def test_verify_reports_a_gap_and_what_the_log_signed_before_is_no_failure(fork: Fork) -> None:
    begins = fork.begin()
    coordinator = fork.coordinator
    fingerprint = coordinator.state.genesis_place.digest
    found = verify(Material(coordinator.envelopes(), None, fingerprint, checkpoints=(fork.note,)))
    lineages = [each for check in found.checks if check.name == "lineages" for each in check.findings]
    assert [(each.outcome, each.leaf) for each in lineages] == [(Outcome.GAPS, begins)]
    assert found.outcome is Outcome.GAPS
    other = signed_of_another_tree(coordinator)
    assert verify(Material(coordinator.envelopes(), None, fingerprint, checkpoints=(other,))).outcome is Outcome.FAILED


def signed_of_another_tree(coordinator: Coordinator) -> bytes:
    """The log's word for other entries than those before the new lineage: that is no accident of a restore."""
    entries = [*coordinator.envelopes()[:3], b"{}"]
    key = SigningKey.load(coordinator.layout.log_key)
    return signed_checkpoint(tree_of(entries), coordinator.state.genesis, key).encode()


SPOILT: dict[str, tuple[dict[str, object], str]] = {
    "another place": ({"missing_from": 3}, "says that entries are missing from 3 on"),
    "no checkpoint": ({"given_up": None}, "holds missing_from and given_up alone"),
    "a note of nobody": ({"given_up": "hospitals\n3\n"}, "is no checkpoint of this log"),
    "about a run": ({"run": RUN}, "or holds others: run"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_recovery_says_what_it_must_and_nothing_else(fork: Fork, spoilt: str) -> None:
    change, text = SPOILT[spoilt]
    state, coordinator = fork.coordinator.state, fork.coordinator
    fields: dict[str, object] = {
        "action": "recovery",
        "issued_at": "2026-11-22T00:00:00.000Z",
        "reason": "nobody-holds-the-rest",
        "missing_from": state.size,
        "given_up": fork.note.decode(),
    }
    assert state.roster_place is not None
    parent = Parent("roster", state.roster_place.digest)
    key = SigningKey.load(coordinator.layout.statement_key)

    def made(**fields: object) -> bytes:
        return sign(Control.model_validate(fields), parent=parent, key=key).envelope

    assert admit(state, made(**fields)).state.lineages
    with pytest.raises(StatementError, match=text):
        admit(state, made(**fields | change))
