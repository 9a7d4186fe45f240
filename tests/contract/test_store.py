"""One suite, every store: what coordinator.store.database promises, whatever is below it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.errors import StorageFailure
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.keys import TlsKey
from coordinator.store import tables
from coordinator.store.database import CertificateRow, Database, InvitationRow, LedgerRow, MetricsRow, Seal, file_url
from coordinator.store.tree import Tile

NOW = "2026-01-01T00:00:00.000Z"
INVITATION = InvitationRow("id-1", "north", "trainer,evaluator", "ab" * 32, "2026-01-04T00:00:00.000Z")


def a_row(index: int, envelope: bytes = b"{}") -> LedgerRow:
    return LedgerRow(index, f"{index:064x}", "answer", NOW, envelope)


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    made = Database(file_url(tmp_path / "state.sqlite") if request.param == "file" else "sqlite://")
    yield made
    made.close()


def append(database: Database, *rows: LedgerRow) -> None:
    with database.transaction() as tx:
        for row in rows:
            tx.append(row)


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_a_new_store_is_empty(database: Database) -> None:
    assert (database.ledger_size(), database.envelopes(0)) == (0, [])
    assert (database.seals(), database.invitations(), database.metrics("tiny")) == ({}, [], {})


def test_envelopes_come_back_as_the_very_bytes_in_order(database: Database) -> None:
    rows = [a_row(index, bytes([index, 0, 255])) for index in range(5)]
    append(database, *reversed(rows))
    assert database.envelopes(0) == rows
    assert database.envelopes(3) == rows[3:]
    assert database.envelopes(1, limit=2) == rows[1:3]
    assert database.envelopes(5) == []
    assert database.ledger_size() == 5


def test_no_more_envelopes_are_in_memory_than_asked_for_but_one_at_least(database: Database) -> None:
    rows = [a_row(index, bytes([index]) * 100) for index in range(5)]
    append(database, *rows)
    assert database.envelopes(1, max_bytes=250) == rows[1:3]
    assert database.envelopes(1, max_bytes=50) == rows[1:2]
    assert database.envelopes(0, limit=4, max_bytes=500) == rows[:4]
    assert database.envelopes(5, max_bytes=50) == []


def test_an_index_stands_once(database: Database) -> None:
    append(database, a_row(0), a_row(1))
    with pytest.raises(StorageFailure, match=r"The state database refused a change: IntegrityError\."):
        append(database, replace(a_row(1), digest="cd" * 32))
    assert database.envelopes(0) == [a_row(0), a_row(1)]


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    def half() -> None:
        with database.transaction() as tx:
            tx.append(a_row(0))
            tx.keep_metrics(MetricsRow("ab" * 32, "tiny", b"{}", b"salt"))
            raise KeyError("the process died here")

    with pytest.raises(KeyError, match="died here"):
        half()
    assert database.ledger_size() == 0
    assert database.metrics("tiny") == {}
    append(database, a_row(0))


# --- the ledger's tree ---------------------------------------------------------------------------------------------------


def test_tiles_are_found_again_and_written_once(database: Database) -> None:
    tiles = [
        Tile(level, position, bytes([level]) * 32, bytes([position]) * 8192) for level in (0, 1) for position in (0, 1)
    ]
    with database.transaction() as tx:
        tx.keep_tiles(tiles)
        tx.keep_tiles([])
    assert database.tile(1, 1) == tiles[3]
    assert database.tile(1, 2) is None
    assert database.tile_roots(0, 0, 2) == [bytes(32), bytes(32)]
    assert database.tile_roots(1, 1, 9) == [bytes([1]) * 32]
    with pytest.raises(StorageFailure, match="IntegrityError"), database.transaction() as tx:
        tx.keep_tiles(tiles[:1])


def test_a_checkpoint_is_kept_by_its_size_and_gives_way_to_a_later_one(database: Database) -> None:
    assert (database.checkpoints(), database.checkpoint(3)) == ([], None)
    with database.transaction() as tx:
        for size in (30, 3, 12):
            tx.keep_checkpoint(size, b"note %d" % size)
    with database.transaction() as tx:
        tx.keep_checkpoint(12, b"note 12, cosigned")
    assert database.checkpoints() == [b"note 3", b"note 12, cosigned", b"note 30"]
    assert database.checkpoints(newest=2) == [b"note 12, cosigned", b"note 30"]
    assert (database.checkpoint(12), database.checkpoint(13)) == (b"note 12, cosigned", None)


# --- beside it -------------------------------------------------------------------------------------------------------


def test_a_seal_is_found_again(database: Database) -> None:
    seal = Seal("ab" * 32, "deadline-passed", NOW)
    with database.transaction() as tx:
        tx.seal(seal)
    assert database.seals() == {"ab" * 32: seal}


def test_a_round_is_sealed_once(database: Database) -> None:
    with database.transaction() as tx:
        tx.seal(Seal("ab" * 32, "deadline-passed", NOW))
    with pytest.raises(StorageFailure, match="IntegrityError"), database.transaction() as tx:
        tx.seal(Seal("ab" * 32, "all-contributed", NOW))
    assert database.seals()["ab" * 32].reason == "deadline-passed"


def test_metrics_are_found_by_run_and_contribution(database: Database) -> None:
    rows = [MetricsRow(digit * 64, run, b"{}", b"salt") for digit, run in (("a", "one"), ("b", "one"), ("c", "two"))]
    with database.transaction() as tx:
        for row in rows:
            tx.keep_metrics(row)
    assert database.metrics("one") == {"a" * 64: rows[0], "b" * 64: rows[1]}
    assert database.metrics("two") == {"c" * 64: rows[2]}


def test_an_invitation_is_kept_by_its_hash_and_redeemed_for_good(database: Database) -> None:
    with database.transaction() as tx:
        tx.invite(INVITATION)
    assert database.invitation("id-1") == INVITATION
    assert database.invitation("id-2") is None
    with database.transaction() as tx:
        tx.redeem("id-1", redeemed_by="cd" * 32, certificate_pem=b"PEM", roster_index=7)
    redeemed = replace(INVITATION, redeemed_by="cd" * 32, certificate_pem=b"PEM", roster_index=7)
    assert database.invitations() == [redeemed]


def test_a_new_invitation_withdraws_the_open_ones_of_that_institution_alone(database: Database) -> None:
    others = [
        replace(INVITATION, id="id-2", institution="south", secret_sha256="cd" * 32),
        replace(INVITATION, id="id-3", secret_sha256="ef" * 32),
    ]
    for row in (INVITATION, *others):
        with database.transaction() as tx:
            tx.invite(row)
    assert [row.id for row in database.invitations()] == ["id-2", "id-3"]


def test_a_redeemed_invitation_is_not_withdrawn(database: Database) -> None:
    with database.transaction() as tx:
        tx.invite(INVITATION)
        tx.redeem("id-1", redeemed_by="cd" * 32, certificate_pem=b"PEM", roster_index=7)
    with database.transaction() as tx:
        tx.invite(replace(INVITATION, id="id-2", secret_sha256="cd" * 32))
    assert [row.id for row in database.invitations()] == ["id-1", "id-2"]


# --- threads ---------------------------------------------------------------------------------------------------------


def test_readers_see_whole_transactions_while_one_thread_writes(database: Database) -> None:
    """Two rows a transaction: no reader ever counts an odd number."""
    done = threading.Event()

    def read() -> set[int]:
        seen = {database.ledger_size()}
        while not done.is_set():
            seen.add(database.ledger_size())
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for index in range(0, 40, 2):
            append(database, a_row(index), a_row(index + 1))
        done.set()
        seen = set().union(*(reader.result(30) for reader in readers))
    assert all(size % 2 == 0 for size in seen)
    assert database.ledger_size() == 40


# --- files only ------------------------------------------------------------------------------------------------------


def test_what_was_committed_is_there_after_the_store_is_opened_again(tmp_path: Path) -> None:
    url = file_url(tmp_path / "state.sqlite")
    first = Database(url)
    append(first, a_row(0))
    first.close()
    again = Database(url)
    assert again.envelopes(0) == [a_row(0)]
    again.close()


def test_a_store_of_another_schema_version_is_left_alone(tmp_path: Path) -> None:
    url = file_url(tmp_path / "state.sqlite")
    Database(url).close()
    connection = sqlite3.connect(tmp_path / "state.sqlite")
    connection.execute("UPDATE schema SET version = ?", [tables.SCHEMA_VERSION + 1])
    connection.commit()
    connection.close()
    with pytest.raises(StorageFailure, match=r"The state database has schema version 4, expected at most 3\."):
        Database(url)


def spoil_file(path: Path) -> None:
    path.write_bytes(b"this is no database, and long enough to be taken for one" * 20)


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoil_file, make_folder])
def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "state.sqlite")
    with pytest.raises(StorageFailure, match="The state database"):
        Database(file_url(tmp_path / "state.sqlite"))


def test_a_transaction_takes_the_writers_lock_at_once(tmp_path: Path) -> None:
    """BEGIN IMMEDIATE: a second writer waits at the beginning, and never fails in the middle of its work."""
    database = Database(file_url(tmp_path / "state.sqlite"))
    other = sqlite3.connect(tmp_path / "state.sqlite", timeout=0, isolation_level=None)
    try:
        with database.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    finally:
        other.close()
        database.close()


def test_writes_are_synced_and_readers_are_not_kept_waiting(tmp_path: Path) -> None:
    database = Database(file_url(tmp_path / "state.sqlite"))
    with database.transaction() as tx:
        pragmas = [
            tx._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert database.ledger_size() == 0, "a reader goes on while a writer works"
    assert pragmas == ["wal", 2, 1]
    database.close()


def test_a_store_of_version_1_is_brought_up_to_date_in_place(tmp_path: Path) -> None:
    """What was issued stood only in the invitations that were redeemed; what was only invited stays so."""
    authority, key = Authority.create("hospitals", now=ManualClock().now()), TlsKey.generate()
    pem = authority.issue_institution(key.csr("north"), "north", now=ManualClock().now(), days=30)
    made = Database(file_url(tmp_path / "state.sqlite"))
    append(made, a_row(0))
    with made.transaction() as tx:
        tx.invite(INVITATION)
        tx.redeem(INVITATION.id, redeemed_by="cd" * 32, certificate_pem=pem, roster_index=2)
        tx.invite(replace(INVITATION, id="id-2", institution="south", secret_sha256="ef" * 32))
    made.close()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        connection.execute("DROP TABLE certificates")
        connection.execute("UPDATE schema SET version = 1")
    connection.close()
    for _ in range(2):
        database = Database(file_url(tmp_path / "state.sqlite"))
        serial = certificate_id(pem).serial
        assert database.certificates() == {serial: CertificateRow(serial, "north", pem, 2)}
        assert (database.ledger_size(), len(database.invitations())) == (1, 2)
        database.close()
    with sqlite3.connect(tmp_path / "state.sqlite") as connection:
        assert connection.execute("SELECT version FROM schema").fetchall() == [(tables.SCHEMA_VERSION,)]
    connection.close()


# --- certificates ----------------------------------------------------------------------------------------------------


def test_a_certificate_is_kept_once(database: Database) -> None:
    row = CertificateRow("ab12", "north", b"pem", 3, "ab11")
    with database.transaction() as tx:
        tx.keep_certificate(row)
    assert database.certificate("ab12") == row
    assert database.certificate("ab13") is None
    with pytest.raises(StorageFailure), database.transaction() as tx:
        tx.keep_certificate(row)


def test_open_invitations_are_withdrawn_and_redeemed_ones_are_not(database: Database) -> None:
    with database.transaction() as tx:
        tx.invite(INVITATION)
        tx.redeem(INVITATION.id, redeemed_by="cd" * 32, certificate_pem=b"pem", roster_index=2)
        tx.invite(replace(INVITATION, id="id-2", secret_sha256="ef" * 32))
    with database.transaction() as tx:
        assert (tx.withdraw("north"), tx.withdraw("nobody")) == (1, 0)
    assert [row.id for row in database.invitations()] == [INVITATION.id]
