"""The participant's memory: its copy of the ledger, what it signed, and every byte that left (SQLite, synchronous=FULL).

What is signed is written here before it is sent, one row a slot, so that no crash makes this institution sign a slot twice:
after a restart the very same bytes are sent again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import SlotTaken, StorageFailure

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (position INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS signed (
    slot TEXT PRIMARY KEY, digest TEXT NOT NULL, envelope BLOB NOT NULL, metrics BLOB NOT NULL, salt BLOB NOT NULL,
    signed_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS egress (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    receiver TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class SignedSlot:
    """A statement of this institution, with what travels beside it."""

    slot: str
    digest: str
    envelope: bytes
    metrics: bytes
    salt: bytes
    signed_at: str


@dataclass(frozen=True, slots=True)
class Egress:
    """Bytes that left this institution."""

    at: str
    kind: str
    bytes: int
    digest: str
    receiver: str


class Journal:
    """Thread-safe; each write is durable when it returns.

    Raises:
        StorageFailure: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        with _storage(path):
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found not in {0, SCHEMA_VERSION}:
                raise StorageFailure(
                    f"{path} has schema version {found}, expected {SCHEMA_VERSION}.", "Start the release that made it."
                )
            self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._path = path

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # --- the ledger's copy -------------------------------------------------------------------------------------------

    def ledger(self) -> list[bytes]:
        """Every envelope seen, in order."""
        return [row[0] for row in self._read("SELECT envelope FROM ledger ORDER BY position")]

    def keep(self, entries: list[tuple[int, str, bytes]]) -> None:
        """Index, digest and envelope of entries that were verified, together."""
        with self._lock, _storage(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", entries)
            except sqlite3.Error:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # --- what was signed ---------------------------------------------------------------------------------------------

    def signed(self, slot: str) -> SignedSlot | None:
        """What this institution signed for a slot."""
        rows = self._read("SELECT * FROM signed WHERE slot = ?", (slot,))
        return SignedSlot(*rows[0]) if rows else None

    def sign(self, entry: SignedSlot) -> None:
        """Remember a signed statement before it is sent.

        Raises:
            SlotTaken: the slot holds another one.
        """
        with self._lock, _storage(self._path):
            before = self._connection.execute("SELECT digest FROM signed WHERE slot = ?", (entry.slot,)).fetchone()
            if before is not None and before[0] != entry.digest:
                raise SlotTaken(f"Slot {entry.slot} was signed before, as {before[0][:16]}….")
            self._connection.execute(
                "INSERT OR IGNORE INTO signed VALUES (?, ?, ?, ?, ?, ?)",
                (entry.slot, entry.digest, entry.envelope, entry.metrics, entry.salt, entry.signed_at),
            )

    # --- what left ---------------------------------------------------------------------------------------------------

    def book(self, entry: Egress) -> None:
        """Book bytes that left."""
        with self._lock, _storage(self._path):
            self._connection.execute(
                "INSERT INTO egress (at, kind, bytes, digest, receiver) VALUES (?, ?, ?, ?, ?)",
                (entry.at, entry.kind, entry.bytes, entry.digest, entry.receiver),
            )

    def egress(self) -> list[Egress]:
        """All that left, oldest first."""
        return [Egress(*row) for row in self._read("SELECT at, kind, bytes, digest, receiver FROM egress ORDER BY id")]

    def _read(self, query: str, arguments: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _storage(self._path):
            return self._connection.execute(query, arguments).fetchall()


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as err:
        raise StorageFailure(f"The journal {path} failed: {err}.") from err
