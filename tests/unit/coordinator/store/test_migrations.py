"""Databases of older releases: brought up to date in place, with what they held."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import StorageFailure
from common.ledger.heads import tree_of
from coordinator.store import migrations
from coordinator.store.database import Database, LedgerRow, file_url
from coordinator.store.tiles import rebuilt, recovered
from coordinator.store.tree import LedgerTree
from tests.support.coordinators import Coordinator

ENVELOPES = [b"envelope %d" % number for number in range(700)]
ROWS = [
    LedgerRow(index, f"{index:064x}", "answer", "2026-01-01T00:00:00.000Z", envelope)
    for index, envelope in enumerate(ENVELOPES)
]
OLD_LEDGER = """
    CREATE TABLE ledger ("index" INTEGER NOT NULL, digest VARCHAR(64) NOT NULL, kind VARCHAR(32) NOT NULL,
        appended_at VARCHAR(24) NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY ("index"), UNIQUE (digest))
"""


def make_old(path: Path, version: int) -> None:
    """What a release with that schema left: an index over digests, no tiles, no checkpoints."""
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = connection.execute('SELECT * FROM ledger ORDER BY "index"').fetchall()
        for table in ("ledger", "tiles", "checkpoints", *(["certificates"] if version == 1 else [])):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(OLD_LEDGER)
        connection.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE schema SET version = ?", [version])


def an_old_database(path: Path, version: int, rows: list[LedgerRow] = ROWS) -> None:
    made = Database(file_url(path))
    with made.transaction() as tx:
        tx.append(*rows)
    made.close()
    make_old(path, version)


def schema_of(path: Path) -> tuple[int, list[str]]:
    """The version, and the names of what stands there."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE tbl_name LIKE 'ledger%'").fetchall()
        return connection.execute("SELECT version FROM schema").fetchone()[0], sorted(name for (name,) in names)


@pytest.mark.parametrize("version", [1, 2])
def test_tiles_are_made_from_the_stored_envelopes(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.sqlite"
    an_old_database(path, version)
    for _ in range(2):
        database = Database(file_url(path))
        assert database.envelopes(0) == ROWS
        assert recovered(database).head() == rebuilt(database).head() == tree_of(ENVELOPES).head()
        assert [database.tile(0, position) is not None for position in range(3)] == [True, True, False]
        database.close()
    assert schema_of(path) == (3, ["ledger"]), "no index over digests, and no table that is left over"


def test_an_old_coordinator_goes_on(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home")
    coordinator.start_run()
    before, head = coordinator.state, coordinator.ledger.head
    coordinator.close()
    make_old(coordinator.layout.state, 2)
    coordinator._open()
    assert (coordinator.state, coordinator.ledger.head) == (before, head)
    coordinator.play()
    coordinator.close()


def test_a_migration_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    an_old_database(path, 2)
    before = schema_of(path)

    def die(*_: object) -> None:
        raise KeyError("the process died here")

    with monkeypatch.context() as context:
        context.setattr(migrations, "_tiles_of_envelopes", die)
        with pytest.raises(KeyError, match="died here"):
            Database(file_url(path))
    assert schema_of(path) == before
    database = Database(file_url(path))
    assert (database.envelopes(0), schema_of(path)[0]) == (ROWS, 3)
    database.close()


def test_an_old_ledger_with_a_gap_is_opened_and_its_tree_ends_there(tmp_path: Path) -> None:
    """Whoever replays it names the index; `verify` must be able to open it."""
    path = tmp_path / "state.sqlite"
    an_old_database(path, 2, ROWS[:300] + ROWS[301:])
    database = Database(file_url(path))
    assert database.ledger_size() == 699
    assert [database.tile(0, position) is not None for position in range(2)] == [True, False]
    database.close()


def test_an_empty_old_database_has_the_empty_tree(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    an_old_database(path, 1, [])
    database = Database(file_url(path))
    assert recovered(database).head() == LedgerTree().head()
    database.close()


def test_a_later_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    an_old_database(path, 4)
    with pytest.raises(StorageFailure, match=r"The state database has schema version 4, expected at most 3\."):
        Database(file_url(path))
    assert schema_of(path)[0] == 4
