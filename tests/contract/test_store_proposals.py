"""One suite, every store: what coordinator.store.proposals promises, whatever is below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import StorageFailure
from coordinator.store.database import Database, file_url
from coordinator.store.proposals import ApprovalRow, ProposalRow

NOW, LATER = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.000Z"
WEST = ProposalRow("aa" * 32, "enrol", "west", "11" * 32, LATER, b"{}", b"pem", None, "id-1", "22" * 32)
SOUTH = ProposalRow("bb" * 32, "revoke", "south", "33" * 32, NOW, b"\x00\xff")
NORTH = ApprovalRow(WEST.payload_sha256, "north", "cc" * 32, b"s" * 64, NOW)


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(file_url(tmp_path / "state.sqlite") if request.param == "file" else "sqlite://")
    yield made
    made.close()


def propose(database: Database, *rows: ProposalRow) -> None:
    with database.transaction() as tx:
        for row in rows:
            tx.propose(row)


def test_a_new_store_holds_no_drafts(database: Database) -> None:
    assert (database.proposals(), database.count_proposals(), database.proposal("aa" * 32)) == ([], 0, None)
    assert (database.proposal_for("enrol", "west"), database.approvals("aa" * 32)) == (None, [])


def test_drafts_come_back_as_they_were_oldest_first(database: Database) -> None:
    propose(database, WEST, SOUTH)
    assert database.proposals() == [SOUTH, WEST]
    assert (database.proposal(WEST.payload_sha256), database.proposal_for("revoke", "south")) == (WEST, SOUTH)
    assert (database.count_proposals(), database.proposal_for("enrol", "south")) == (2, None)


def test_a_new_draft_for_the_same_subject_takes_the_place_of_the_first_and_of_its_approvals(database: Database) -> None:
    propose(database, WEST)
    with database.transaction() as tx:
        tx.keep_approval(NORTH)
    again = replace(WEST, payload_sha256="dd" * 32)
    propose(database, again)
    assert database.proposals() == [again]
    assert (database.approvals(WEST.payload_sha256), database.approvals(again.payload_sha256)) == ([], [])
    propose(database, again)
    assert database.count_proposals() == 1


def test_approvals_come_back_by_institution_each_once(database: Database) -> None:
    propose(database, WEST)
    newer, south = replace(NORTH, signature=b"t" * 64), replace(NORTH, institution="south")
    with database.transaction() as tx:
        for row in (south, NORTH, newer):
            tx.keep_approval(row)
    assert database.approvals(WEST.payload_sha256) == [newer, south]


def test_a_dropped_draft_leaves_nothing(database: Database) -> None:
    propose(database, WEST, SOUTH)
    with database.transaction() as tx:
        tx.keep_approval(NORTH)
        assert tx.drop_proposal("enrol", "west")
        assert not tx.drop_proposal("enrol", "west")
    assert (database.proposals(), database.approvals(WEST.payload_sha256)) == ([SOUTH], [])


def test_two_subjects_never_share_a_payload(database: Database) -> None:
    propose(database, WEST)
    with pytest.raises(StorageFailure, match="refused a change: IntegrityError"):
        propose(database, replace(SOUTH, payload_sha256=WEST.payload_sha256))
    assert database.proposals() == [WEST]
