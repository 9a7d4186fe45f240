"""The state database through SQLAlchemy: SQLite by default, in memory for tests, PostgreSQL by URL later.

Every change is one transaction, durable before it is visible: WAL, synchronous=FULL, BEGIN IMMEDIATE. SQLAlchemy is used
for its dialects and pooling; there is no object mapping, rows are small frozen dataclasses.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from common.errors import StorageFailure
from coordinator.store import tables
from coordinator.store.inserting import insert_rows, keep_tiles
from coordinator.store.migrations import bring_up_to_date, raw
from coordinator.store.proposals import ProposalReads, ProposalWrites
from coordinator.store.tree import Tile

MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Envelopes in memory at once: a thousand of the largest would be a gigabyte."""
MAX_PARAMETERS = 900
"""Values in one query; SQLite took 999 at most before 3.32."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    index: int
    digest: str
    kind: str
    appended_at: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    round_opened: str
    reason: str
    sealed_at: str


@dataclass(frozen=True, slots=True)
class MetricsRow:
    contribution: str
    run: str
    content: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class InvitationRow:
    id: str
    institution: str
    roles: str
    secret_sha256: str
    expires_at: str
    redeemed_by: str | None = None
    certificate_pem: bytes | None = None
    roster_index: int | None = None


@dataclass(frozen=True, slots=True)
class CertificateRow:
    serial: str
    institution: str
    pem: bytes
    roster_index: int
    replaces: str | None = None


def _failure(what: str, err: Exception) -> StorageFailure:
    """A damaged page can also be text that is none, in SQLite's own words for it."""
    code = getattr(getattr(err, "orig", None), "sqlite_errorcode", 0) & 0xFF
    damaged = isinstance(err, UnicodeDecodeError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if not damaged:
        return StorageFailure(f"The state database {what}: {err.__class__.__name__}.")
    return StorageFailure(
        f"The state database {what}: it is damaged ({err.__class__.__name__}).",
        "Keep the file, put back the home's newest backup, and look at this machine's disk and memory.",
    )


def file_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{path}"


class Database(ProposalReads):
    """All reads and writes of the coordinator's state. Reads from any thread; writes from the engine's thread only.

    Args:
        url: `sqlite:///…` for a file, `sqlite://` for memory.

    Raises:
        StorageFailure: the database cannot be opened, or was made by a later schema version.
    """

    def __init__(self, url: str) -> None:
        memory = url in {"sqlite://", "sqlite:///:memory:"}
        arguments: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 30}}
        if memory:
            arguments["poolclass"] = StaticPool
        # In memory all threads share one connection, and one connection holds one transaction.
        self._turn: AbstractContextManager[object] = threading.Lock() if memory else nullcontext()
        self._engine = create_engine(url, **arguments)
        self.deletions = 0  # grows when metrics were deleted: what was composed from them is composed anew
        if self._engine.dialect.name == "sqlite":
            _sqlite_pragmas(self._engine, wal=not memory)
        self._writing = self._engine.execution_options(writes=True)
        with self.transaction() as tx:
            tx.check_schema()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Everything inside becomes durable together, or not at all.

        Raises:
            StorageFailure: the database refused; nothing was written.
        """
        try:
            with self._turn, self._writing.begin() as connection:
                yield Transaction(connection)
        except (SQLAlchemyError, UnicodeDecodeError) as err:
            raise _failure("refused a change", err) from err

    def _rows(self, query: Any) -> list[Any]:
        try:
            with self._turn, self._engine.connect() as connection:
                return list(connection.execute(query).all())
        except (SQLAlchemyError, UnicodeDecodeError) as err:
            raise _failure("cannot be read", err) from err

    def envelopes(self, from_index: int, *, limit: int = 1000, max_bytes: int = MAX_BATCH_BYTES) -> list[LedgerRow]:
        """Rows from `from_index` on, in order: the first, then at most `limit` with at most `max_bytes` of envelopes."""
        column = tables.ledger.c.index
        envelope = func.length(tables.ledger.c.envelope)
        sizes = self._rows(select(column, envelope).where(column >= from_index).order_by(column).limit(limit))
        totals = accumulate(size for _, size in sizes)
        fitting = [index for (index, _), total in zip(sizes, totals, strict=True) if total <= max_bytes]
        last = (fitting or [index for index, _ in sizes[:1]] or [from_index])[-1]
        query = select(tables.ledger).where(column >= from_index, column <= last).order_by(column)
        return [LedgerRow(*row) for row in self._rows(query)]

    def tile(self, level: int, position: int) -> Tile | None:
        """A completed tile of the ledger's tree."""
        where = (tables.tiles.c.level == level, tables.tiles.c.position == position)
        rows = self._rows(select(tables.tiles).where(*where))
        return Tile(*rows[0]) if rows else None

    def tile_roots(self, level: int, first: int, end: int) -> list[bytes]:
        """Roots of the completed tiles `first` to `end` - 1 of a level, in order, as far as they are there."""
        position = tables.tiles.c.position
        where = (tables.tiles.c.level == level, position >= first, position < end)
        return [row.root for row in self._rows(select(tables.tiles.c.root).where(*where).order_by(position))]

    def checkpoints(self, *, newest: int | None = None) -> list[bytes]:
        """Notes that were kept for their cosignatures, smallest tree first; the `newest` of them, if that is given."""
        query = select(tables.checkpoints.c.note).order_by(tables.checkpoints.c.size.desc()).limit(newest)
        return [raw(row.note) for row in reversed(self._rows(query))]

    def checkpoint(self, size: int) -> bytes | None:
        """The note that was kept of that tree."""
        rows = self._rows(select(tables.checkpoints.c.note).where(tables.checkpoints.c.size == size))
        return raw(rows[0].note) if rows else None

    def all_rows(self, table: Table) -> list[Any]:
        """Every row of a table as it stands there, whatever a hand wrote into it. The ledger is read in pages instead."""
        return self._rows(select(table))

    def ledger_size(self) -> int:
        return int(self._rows(select(func.count()).select_from(tables.ledger))[0][0])

    def rows_below_zero(self) -> int:
        """Rows of the ledger's table before entry 0: no release writes any, and no other query finds them."""
        query = select(func.count()).select_from(tables.ledger).where(tables.ledger.c.index < 0)
        return int(self._rows(query)[0][0])

    def triggers_and_views(self) -> list[str]:
        """Kind and name of each; no release makes any. Of SQLite alone."""
        if self._engine.dialect.name != "sqlite":
            return []
        query = text("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY type, name")
        return [f"{row.type} {row.name}" for row in self._rows(query)]

    def seals(self) -> dict[str, Seal]:
        return {row.round_opened: Seal(*row) for row in self._rows(select(tables.seals))}

    def metrics(self, run: str) -> dict[str, MetricsRow]:
        """Metrics of a run by contribution digest."""
        query = select(tables.metrics).where(tables.metrics.c.run == run)
        return {row.contribution: MetricsRow(*row) for row in self._rows(query)}

    def metrics_of(self, contributions: Sequence[str]) -> dict[str, MetricsRow]:
        """Metrics of these contributions, by digest."""
        found: dict[str, MetricsRow] = {}
        for first in range(0, len(contributions), MAX_PARAMETERS):
            some = contributions[first : first + MAX_PARAMETERS]
            rows = self._rows(select(tables.metrics).where(tables.metrics.c.contribution.in_(some)))
            found |= {row.contribution: MetricsRow(*row) for row in rows}
        return found

    def let_go_of_deleted(self) -> None:
        """Make the bytes of deleted rows leave the files: their pages are overwritten, and the write-ahead log is emptied.

        Raises:
            StorageFailure: the database refused; the rows stay deleted.
        """
        self.deletions += 1
        if self._engine.dialect.name != "sqlite":
            return
        try:
            with self._turn, closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except (SQLAlchemyError, sqlite3.Error) as err:
            raise StorageFailure(f"The state database's log cannot be emptied: {err.__class__.__name__}.") from err

    def invitation(self, invitation_id: str) -> InvitationRow | None:
        rows = self._rows(select(tables.invitations).where(tables.invitations.c.id == invitation_id))
        return InvitationRow(*rows[0]) if rows else None

    def invitations(self) -> list[InvitationRow]:
        return [InvitationRow(*row) for row in self._rows(select(tables.invitations).order_by(tables.invitations.c.id))]

    def certificate(self, serial: str) -> CertificateRow | None:
        """A certificate that was issued to a member."""
        rows = self._rows(select(tables.certificates).where(tables.certificates.c.serial == serial))
        return CertificateRow(*rows[0]) if rows else None

    def certificates(self) -> dict[str, CertificateRow]:
        """All that were issued to members, by serial."""
        return {row.serial: CertificateRow(*row) for row in self._rows(select(tables.certificates))}


class Transaction(ProposalWrites):
    """The writes that belong together."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def check_schema(self) -> None:
        """Make what is not there, and bring an older database up to date.

        Raises:
            StorageFailure: a later release made it.
        """
        tables.schema.create(self._connection, checkfirst=True)
        found = self._connection.execute(select(tables.schema.c.version)).scalar_one_or_none()
        if found is None:
            tables.metadata.create_all(self._connection)
            self._connection.execute(insert(tables.schema).values(version=tables.SCHEMA_VERSION))
            return
        if not isinstance(found, int) or found > tables.SCHEMA_VERSION:
            raise StorageFailure(
                f"The state database has schema version {found!r}, expected at most {tables.SCHEMA_VERSION}.",
                "Start the release that made it, or restore a backup.",
            )
        bring_up_to_date(self._connection, found)

    def append(self, *rows: LedgerRow) -> None:
        """More ledger rows, which go on where the ledger ends (the primary key refuses a second one of an index)."""
        values = [(row.index, row.digest, row.kind, row.appended_at, row.envelope) for row in rows]
        insert_rows(self._connection, tables.ledger, values)

    def keep_tiles(self, tiles: Sequence[Tile]) -> None:
        """Tiles that the rows of this transaction completed."""
        keep_tiles(self._connection, tiles)

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        """A note of the tree of that size, in place of the one that was kept before."""
        self._connection.execute(delete(tables.checkpoints).where(tables.checkpoints.c.size == size))
        self._connection.execute(insert(tables.checkpoints).values(size=size, note=note))

    def seal(self, seal: Seal) -> None:
        insert_rows(self._connection, tables.seals, [(seal.round_opened, seal.reason, seal.sealed_at)])

    def keep_metrics(self, row: MetricsRow) -> None:
        insert_rows(self._connection, tables.metrics, [(row.contribution, row.run, row.content, row.salt)])

    def delete_metrics(self, contributions: Sequence[str]) -> int:
        """Delete the metrics of these contributions; how many there were. `Database.let_go_of_deleted` comes after."""
        deleted = 0
        for first in range(0, len(contributions), MAX_PARAMETERS):
            some = contributions[first : first + MAX_PARAMETERS]
            command = delete(tables.metrics).where(tables.metrics.c.contribution.in_(some))
            deleted += self._connection.execute(command).rowcount
        return deleted

    def invite(self, row: InvitationRow) -> None:
        """A new invitation; open ones of the same institution are withdrawn."""
        self.withdraw(row.institution)
        self._connection.execute(
            insert(tables.invitations).values(
                id=row.id,
                institution=row.institution,
                roles=row.roles,
                secret_sha256=row.secret_sha256,
                expires_at=row.expires_at,
            )
        )

    def withdraw(self, institution: str) -> int:
        """Withdraw the open invitations of an institution; how many there were."""
        open_ones = (tables.invitations.c.institution == institution, tables.invitations.c.redeemed_by.is_(None))
        return self._connection.execute(delete(tables.invitations).where(*open_ones)).rowcount

    def keep_certificate(self, row: CertificateRow) -> None:
        self._connection.execute(
            insert(tables.certificates).values(
                serial=row.serial,
                institution=row.institution,
                pem=row.pem,
                roster_index=row.roster_index,
                replaces=row.replaces,
            )
        )

    def redeem(self, invitation_id: str, *, redeemed_by: str, certificate_pem: bytes, roster_index: int) -> None:
        self._connection.execute(
            update(tables.invitations)
            .where(tables.invitations.c.id == invitation_id)
            .values(redeemed_by=redeemed_by, certificate_pem=certificate_pem, roster_index=roster_index)
        )


def _sqlite_pragmas(engine: Engine, *, wal: bool) -> None:
    """Durability and transactions; sqlite3's own implicit transactions are switched off for that."""

    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        if wal:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten: metrics are deleted to be gone
        cursor.close()

    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
