"""The participant's memory: durable, one signed statement a slot, a damaged or foreign file is named."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import SlotTaken, StorageFailure
from participant.memory.journal import CheckpointKind, Egress, Journal, KeptCheckpoint, SignedSlot

ENTRY = SignedSlot("contribution/ab", "d1", b"envelope", b"metrics", b"salt", "2026-01-01T00:00:00.000Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path)
    yield made
    made.close()


def test_what_was_kept_is_there_after_a_restart(journal: Journal, path: Path) -> None:
    journal.keep([(0, "g", b"genesis"), (1, "r", b"roster")])
    journal.sign(ENTRY)
    journal.book(Egress("2026-01-01T00:00:00.000Z", "delta", 5, "d1", "coordinator:7443"))
    with closing(Journal(path)) as again:
        assert again.ledger() == [b"genesis", b"roster"]
        assert again.signed("contribution/ab") == ENTRY
        assert again.signed("contribution/cd") is None
        assert [(entry.kind, entry.bytes) for entry in again.egress()] == [("delta", 5)]


def test_only_the_owner_reads_it(journal: Journal, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_slot_takes_one_statement_ever(journal: Journal) -> None:
    journal.sign(ENTRY)
    journal.sign(ENTRY)
    with pytest.raises(SlotTaken, match=r"Slot contribution/ab was signed before, as d1"):
        journal.sign(replace(ENTRY, digest="d2", envelope=b"other"))
    assert journal.signed("contribution/ab") == ENTRY


def test_entries_are_kept_together_or_not_at_all(journal: Journal) -> None:
    journal.keep([(0, "g", b"genesis")])
    with pytest.raises(StorageFailure, match=r"The journal .*journal\.sqlite failed: UNIQUE constraint"):
        journal.keep([(1, "r", b"roster"), (1, "s", b"twice")])
    assert journal.ledger() == [b"genesis"]
    journal.keep([(1, "r", b"roster")])
    assert journal.ledger() == [b"genesis", b"roster"]


def test_a_file_that_is_no_journal_is_named(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be read as one " * 40)
    with pytest.raises(StorageFailure, match=r"journal\.sqlite failed: file is not a database"):
        Journal(path)


def test_a_journal_of_another_release_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version=7")
    with pytest.raises(
        StorageFailure, match=r"schema version 7, expected at most 2\. .* Start the release that made it"
    ):
        Journal(path)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def kept(size: int, note: bytes) -> KeptCheckpoint:
    return KeptCheckpoint(size, "ab" * 32, note, "2026-01-01T00:00:00.000Z")


def test_the_newest_checkpoint_takes_the_place_of_the_one_before(journal: Journal, path: Path) -> None:
    journal.keep_checkpoints("newest", [kept(9, b"nine")])
    journal.keep_checkpoints("newest", [kept(12, b"twelve")])
    with closing(Journal(path)) as again:
        assert again.checkpoints() == [b"twelve"]
        assert again.checkpoints_of("newest") == [kept(12, b"twelve")]


@pytest.mark.parametrize("kind", ["cosigned", "conflicting"])
def test_checkpoints_that_were_acted_on_or_conflict_are_kept_for_ever(journal: Journal, kind: CheckpointKind) -> None:
    journal.keep_checkpoints(kind, [kept(12, b"twelve")])
    journal.keep_checkpoints(kind, [kept(12, b"twelve, more cosigned"), kept(9, b"nine")])
    journal.keep_checkpoints(kind, [replace(kept(12, b"twelve"), seen_at="2027-01-01T00:00:00.000Z")])
    assert [each.note for each in journal.checkpoints_of(kind)] == [b"twelve", b"twelve, more cosigned", b"nine"]
    assert {each.seen_at for each in journal.checkpoints_of(kind)} == {"2026-01-01T00:00:00.000Z"}


def test_checkpoints_of_the_own_history_come_ascending_by_size_each_note_once(journal: Journal) -> None:
    journal.keep_checkpoints("newest", [kept(12, b"twelve")])
    journal.keep_checkpoints("covering", [kept(11, b"eleven"), kept(10, b"ten")])
    journal.keep_checkpoints("cosigned", [kept(3, b"three"), kept(11, b"eleven")])
    journal.keep_checkpoints("ahead", [kept(20, b"twenty")])
    journal.keep_checkpoints("conflicting", [kept(10, b"another ten")])
    assert journal.checkpoints() == [b"three", b"ten", b"eleven", b"twelve"]
    assert journal.conflicting() == [b"another ten"]


def test_a_journal_from_before_checkpoints_opens(journal: Journal, path: Path) -> None:
    journal.keep([(0, "g", b"genesis")])
    journal.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE checkpoints")
        other.commit()
    with closing(Journal(path)) as again:
        assert (again.ledger(), again.checkpoints(), again.conflicting()) == ([b"genesis"], [], [])
