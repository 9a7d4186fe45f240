"""Tiles in a database: written with their rows or not at all, read back, checked against the envelopes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import LedgerConflict
from common.ledger import merkle
from common.ledger.heads import tree_of
from coordinator.store import tiles as tiles_module
from coordinator.store.database import Database, LedgerRow, file_url
from coordinator.store.tiles import Tiles, rebuilt, recovered
from coordinator.store.tree import LedgerTree, envelope_hash

ENVELOPES = [b"envelope %d" % number for number in range(1500)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(file_url(tmp_path / "state.sqlite"))
    yield made
    made.close()


def append(database: Database, tree: LedgerTree, end: int, portion: int = 100) -> LedgerTree:
    """Grow to `end` entries, as the ledger does."""
    while tree.size < end:
        some = ENVELOPES[tree.size : min(end, tree.size + portion)]
        tree = append_once(database, tree, some)
    return tree


def append_once(database: Database, tree: LedgerTree, envelopes: list[bytes], crash: bool = False) -> LedgerTree:
    rows = [
        LedgerRow(at, "ab" * 32, "answer", "2026-01-01T00:00:00.000Z", each)
        for at, each in enumerate(envelopes, tree.size)
    ]
    after, completed = tree.grown([envelope_hash(each) for each in envelopes])
    with database.transaction() as tx:
        tx.append(*rows)
        tx.keep_tiles(completed)
        if crash:
            raise KeyError("the process died here")
    return after


def change(tmp_path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection, connection:
        connection.execute(sql, values)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 1500])
def test_a_tree_is_read_back_from_the_newest_rows_or_from_all(database: Database, size: int) -> None:
    tree = append(database, LedgerTree(), size)
    assert tree.head() == tree_of(ENVELOPES[:size]).head()
    for again in (recovered(database), rebuilt(database)):
        assert again.head() == tree.head()
        assert [again.hashes(level) for level in range(3)] == [tree.hashes(level) for level in range(3)]


def test_a_recovered_tree_goes_on_growing(database: Database) -> None:
    append(database, LedgerTree(), 700)
    tree = append(database, recovered(database), 1500)
    assert tree.head() == rebuilt(database).head() == tree_of(ENVELOPES).head()


def test_no_tile_is_left_of_an_append_that_did_not_happen(database: Database) -> None:
    tree = append(database, LedgerTree(), 255)
    with pytest.raises(KeyError, match="died here"):
        append_once(database, tree, [ENVELOPES[255]], crash=True)
    assert database.tile(0, 0) is None
    assert database.ledger_size() == 255
    again = append_once(database, tree, [ENVELOPES[255]])
    kept = database.tile(0, 0)
    assert kept is not None
    assert kept.root == again.head().root


def test_proofs_come_from_the_database_and_the_unfinished_rest(database: Database) -> None:
    tree = append(database, LedgerTree(), 1500)
    stored, plain = Tiles(database).of(tree), tree_of(ENVELOPES)
    for size in (1, 256, 700, 1280, 1500):
        assert stored.head(size) == plain.head(size)
        assert stored.inclusion_proof(size - 1, size) == plain.inclusion_proof(size - 1, size)
        assert stored.consistency_proof(size) == plain.consistency_proof(size)
    merkle.verify_inclusion(
        hashlib.sha256, stored.head(), 300, envelope_hash(ENVELOPES[300]), stored.inclusion_proof(300)
    )


def test_tiles_in_memory_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = append(database, LedgerTree(), 1500)
    monkeypatch.setattr(tiles_module, "CACHED_TILES", 2)
    tiles = Tiles(database)
    for index in range(0, 1280, 256):
        tiles.of(tree).inclusion_proof(index)
    assert tiles._nodes.cache_info().currsize == 2


def test_a_tile_that_was_altered_is_named(database: Database, tmp_path: Path) -> None:
    append(database, LedgerTree(), 600)
    kept = database.tile(0, 1)
    assert kept is not None
    change(tmp_path, "UPDATE tiles SET hashes = ? WHERE level = 0 AND position = 1", kept.hashes[32:] + bytes(32))
    with pytest.raises(
        LedgerConflict, match=r"Tile 1 of level 0 of the ledger's tree is not made from the envelopes beside it\."
    ):
        rebuilt(database)


@pytest.mark.parametrize(
    ("spoil", "got"), [("DELETE FROM tiles", "none"), ("UPDATE tiles SET hashes = x'00'", "1 bytes")]
)
def test_a_tile_that_is_missing_or_cut_gives_no_proof(database: Database, tmp_path: Path, spoil: str, got: str) -> None:
    tree = append(database, LedgerTree(), 600)
    change(tmp_path, spoil)
    with pytest.raises(LedgerConflict, match=rf"Tile 0 of level 0 .* should have 8,192 bytes, got {got}\.") as error:
        Tiles(database).of(tree).inclusion_proof(3)
    assert "Restore the state database" in error.value.fix


def test_a_row_that_is_missing_is_named(database: Database, tmp_path: Path) -> None:
    append(database, LedgerTree(), 600)
    change(tmp_path, 'DELETE FROM ledger WHERE "index" = 300')
    with pytest.raises(LedgerConflict, match=r"The ledger lacks index 300; the next row has 301\."):
        rebuilt(database)
