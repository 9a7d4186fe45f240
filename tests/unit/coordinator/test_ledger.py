"""The ledger as the coordinator holds it: one writer, many readers, and what a restart accepts."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from common.clock import rfc3339
from common.errors import BadSignature, LedgerConflict, StorageFailure, UnknownCertificate, WrongParent
from common.identity.keys import SigningKey
from common.ledger.heads import tree_of
from common.statements.kinds import Control, Roster
from coordinator.ledger import Ledger
from coordinator.store.database import Seal, Transaction
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.participants import RUN


def a_pause(coordinator: Coordinator, reason: str = "operator") -> Control:
    return Control(action="pause", issued_at=rfc3339(coordinator.clock.now()), run=RUN, reason=reason)


def rewrite(coordinator: Coordinator, sql: str, *values: object) -> None:
    """Change the database behind the coordinator's back."""
    connection = sqlite3.connect(coordinator.layout.state)
    connection.execute(sql, values)
    connection.commit()
    connection.close()


def pause_often(coordinator: Coordinator, size: int) -> None:
    """Append until the ledger has so many statements."""
    while coordinator.state.size < size:
        action = "resume" if coordinator.run.paused else "pause"
        coordinator.desk.control_run(RUN, action, "operator")
        coordinator.clock.advance(seconds=1)


def replay(coordinator: Coordinator) -> Ledger:
    key = SigningKey.load(coordinator.layout.statement_key)
    return Ledger(coordinator.database, key, coordinator.clock, coordinator.genesis)


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_slice_holds_the_stored_bytes_up_to_a_size_and_one_entry_at_least(coordinator: Coordinator) -> None:
    envelopes = coordinator.envelopes()
    ledger = coordinator.ledger
    assert ledger.slice(0, max_bytes=2**20, wait_seconds=0).envelopes == tuple(envelopes)
    assert ledger.slice(1, max_bytes=1, wait_seconds=0).envelopes == (envelopes[1],)
    two = ledger.slice(1, max_bytes=len(envelopes[1]) + len(envelopes[2]), wait_seconds=0)
    assert (two.first_index, two.envelopes, two.ledger_size) == (1, tuple(envelopes[1:3]), 5)


def test_a_slice_beyond_the_end_is_empty(coordinator: Coordinator) -> None:
    found = coordinator.ledger.slice(5, max_bytes=2**20, wait_seconds=0)
    assert (found.envelopes, found.ledger_size) == ((), 5)


def test_a_reader_who_waits_wakes_with_the_next_statement(coordinator: Coordinator) -> None:
    found: list[int] = []
    size = coordinator.state.size
    reader = threading.Thread(
        target=lambda: found.append(len(coordinator.ledger.slice(size, max_bytes=2**20, wait_seconds=60).envelopes))
    )
    reader.start()
    coordinator.start_run()
    reader.join(30)
    assert found == [1]


def test_a_member_is_found_by_serial_key_and_name_together(coordinator: Coordinator) -> None:
    north, south = coordinator["north"].member, coordinator["south"].member
    certificate = north.certificates[0]
    peer = f"spiffe://{CONSORTIUM}/institution/north"
    ledger = coordinator.ledger
    assert ledger.by_certificate(certificate.serial, certificate.spki_sha256, peer) == north
    other = south.certificates[0]
    for serial, spki, name in (
        (other.serial, certificate.spki_sha256, peer),
        (certificate.serial, other.spki_sha256, peer),
        (certificate.serial, certificate.spki_sha256, f"spiffe://{CONSORTIUM}/institution/south"),
        (certificate.serial, certificate.spki_sha256, "spiffe://banks/institution/north"),
    ):
        with pytest.raises(UnknownCertificate, match=rf"with serial {serial} for {name} is not in the newest roster"):
            ledger.by_certificate(serial, spki, name)


def test_a_revoked_members_certificate_is_unknown(coordinator: Coordinator) -> None:
    change_member(coordinator, "north", status="revoked")
    certificate = coordinator["north"].member.certificates[0]
    with pytest.raises(UnknownCertificate, match=r"north is no active member of hospitals any more: revoked\."):
        coordinator.ledger.by_certificate(
            certificate.serial, certificate.spki_sha256, f"spiffe://{CONSORTIUM}/institution/north"
        )


def change_member(coordinator: Coordinator, name: str, **changes: object) -> None:
    """A new roster version in which one member differs."""
    roster, place = coordinator.state.roster, coordinator.state.roster_place
    assert roster is not None
    assert place is not None
    members = tuple(member.model_copy(update=changes) if member.name == name else member for member in roster.members)
    coordinator.ledger.append(Roster(version=roster.version + 1, members=members), place)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_statement_and_what_stands_beside_it_are_written_together_or_not_at_all(coordinator: Coordinator) -> None:
    coordinator.start_run()
    before = coordinator.state

    def beside(tx: Transaction) -> None:
        tx.seal(Seal("ab" * 32, "deadline-passed", "2026-01-01T00:00:00.000Z"))
        raise KeyError("the disk went away")

    with pytest.raises(KeyError):
        coordinator.ledger.append(a_pause(coordinator), coordinator.run.tip, beside)
    assert coordinator.state is before
    assert coordinator.database.ledger_size() == before.size
    assert coordinator.database.seals() == {}


def test_what_breaks_a_rule_is_never_written(coordinator: Coordinator) -> None:
    coordinator.start_run()
    with pytest.raises(WrongParent, match="expected plan"):
        coordinator.ledger.append(a_pause(coordinator), coordinator.state.genesis_place)
    assert coordinator.database.ledger_size() == coordinator.state.size


def test_a_key_counts_by_the_roster_right_below_the_statement(coordinator: Coordinator) -> None:
    """The roster changes between a servicer's check and the engine's turn: else the ledger would not replay."""
    coordinator.start_run()
    answer = coordinator["north"].an_answer()
    change_member(coordinator, "north", signing_key=SigningKey.generate().public)
    with pytest.raises(BadSignature, match="expected key"):
        coordinator.ledger.take(answer)
    coordinator.restart()


def test_the_tree_is_the_envelopes_after_each_append_and_after_a_restart(coordinator: Coordinator) -> None:
    coordinator.start_run()
    pause_often(coordinator, 520)
    expected = tree_of(coordinator.envelopes())
    assert coordinator.ledger.head == expected.head()
    assert [coordinator.ledger.tree().head(size) for size in range(521)] == [expected.head(size) for size in range(521)]
    coordinator.restart()
    assert coordinator.ledger.head == expected.head()
    assert coordinator.ledger.tree().inclusion_proof(3) == expected.inclusion_proof(3)


def test_an_append_that_fails_leaves_neither_row_nor_tile_nor_head(coordinator: Coordinator) -> None:
    coordinator.start_run()
    pause_often(coordinator, 255)
    head = coordinator.ledger.head

    def die(tx: Transaction) -> None:
        raise KeyError("the process died here")

    for _ in range(2):
        with pytest.raises(KeyError, match="died here"):
            coordinator.ledger.append(a_pause(coordinator, "again"), coordinator.run.tip, die)
        assert (coordinator.database.tile(0, 0), coordinator.ledger.head) == (None, head)
        coordinator.restart()
    coordinator.ledger.append(a_pause(coordinator, "again"), coordinator.run.tip)
    tile = coordinator.database.tile(0, 0)
    assert tile is not None
    assert tile.root == coordinator.ledger.head.root


def test_statements_remember_when_they_became_durable(coordinator: Coordinator) -> None:
    coordinator.start_run()
    then = coordinator.clock.now()
    coordinator.clock.advance(seconds=100)
    coordinator.restart()
    assert coordinator.ledger.appended_at(coordinator.run.place) == then


# --- starting again --------------------------------------------------------------------------------------------------


def test_a_long_ledger_is_replayed_to_the_same_state(coordinator: Coordinator) -> None:
    coordinator.start_run()
    for _ in range(500):
        coordinator.desk.control_run(RUN, "pause", "operator")
        coordinator.clock.advance(seconds=1)
        coordinator.desk.control_run(RUN, "resume", "operator")
        coordinator.clock.advance(seconds=1)
    before = coordinator.state
    assert before.size > 1000, "more than one page of rows"
    coordinator.restart()
    assert coordinator.state == before


def test_a_ledger_with_a_changed_statement_does_not_start(coordinator: Coordinator) -> None:
    envelope = coordinator.envelopes()[1].replace(b'"sig":"', b'"sig":"A', 1)
    rewrite(coordinator, 'UPDATE ledger SET envelope = ? WHERE "index" = 1', envelope)
    with pytest.raises(Exception, match=r"\[malformed-statement\]"):
        replay(coordinator)


def test_a_ledger_with_a_gap_does_not_start(coordinator: Coordinator) -> None:
    rewrite(coordinator, 'DELETE FROM ledger WHERE "index" = 2')
    with pytest.raises(LedgerConflict, match=r"The ledger lacks index 2; the next row has 3\."):
        replay(coordinator)


def test_a_ledger_without_its_middle_cannot_be_stitched(coordinator: Coordinator) -> None:
    rewrite(coordinator, 'DELETE FROM ledger WHERE "index" = 2')
    rewrite(coordinator, 'UPDATE ledger SET "index" = 2 WHERE "index" = 3')
    with pytest.raises(WrongParent, match=r"A roster names roster"):
        replay(coordinator)


def test_a_ledger_with_a_changed_tile_does_not_start(coordinator: Coordinator) -> None:
    """Proofs are made of tiles, and nobody would believe them."""
    coordinator.start_run()
    pause_often(coordinator, 256)
    assert replay(coordinator).head == coordinator.ledger.head
    tile = coordinator.database.tile(0, 0)
    assert tile is not None
    rewrite(coordinator, "UPDATE tiles SET hashes = ?", bytes(32) + tile.hashes[32:])
    with pytest.raises(LedgerConflict, match=r"Tile 0 of level 0 .* is not made from the envelopes beside it\."):
        replay(coordinator)
    rewrite(coordinator, "DELETE FROM tiles")
    with pytest.raises(LedgerConflict, match=r"Tile 0 of level 0 .* is not made from the envelopes beside it\."):
        replay(coordinator)


def test_a_foreign_genesis_beside_the_database_is_refused(coordinator: Coordinator) -> None:
    other = Coordinator(coordinator.layout.home.parent / "other", names=())
    try:
        with pytest.raises(LedgerConflict, match=r"genesis\.json is not the genesis of the state database beside it\."):
            Ledger(
                coordinator.database,
                SigningKey.load(other.layout.statement_key),
                coordinator.clock,
                other.genesis,
            )
    finally:
        other.close()


def test_two_writers_cannot_both_write_an_index(coordinator: Coordinator) -> None:
    """A second process on the same home would be stopped by the home's lock; the database holds too."""
    coordinator.start_run()
    second = replay(coordinator)
    coordinator.ledger.append(a_pause(coordinator), coordinator.run.tip)
    with pytest.raises(StorageFailure, match="IntegrityError"):
        second.append(a_pause(coordinator, "other"), second.state.runs[RUN].tip)
