"""One SQLite file for what a participant remembers: HOME/journal.sqlite, opened once by each part that keeps something in it.

WAL and synchronous=FULL: a write is durable when it returns, and commands read and write beside the running daemon. A part that
can wait for that opens the file with `synced=False`: a crash of the process loses nothing of it; a power failure may lose what
no later synced write of any part came after, since all share one log that is synced up to its end.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import StorageFailure

SCHEMA_VERSION = 2
DAMAGED_FIX = "Keep the file, put back the home's newest backup, and look at this machine's disk and memory."


class JournalFile:
    """A connection with its lock; any thread.

    Args:
        schema: `CREATE TABLE IF NOT EXISTS` statements of the part that opens it.
        synced: whether its writes wait for the disk.

    Raises:
        StorageFailure: the file cannot be opened, or was made by a later release.
    """

    def __init__(self, path: Path, schema: str, *, synced: bool = True) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._failures():
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            (found,) = self._connection.execute("PRAGMA user_version").fetchone()
            if found > SCHEMA_VERSION:
                raise StorageFailure(
                    f"{path} has schema version {found}, expected at most {SCHEMA_VERSION}.",
                    "Start the release that made it.",
                )
            self._connection.executescript(schema)
            if found < SCHEMA_VERSION:
                self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def read(self, query: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock, self._failures():
            return self._connection.execute(query, arguments).fetchall()

    def write(self, command: str, arguments: tuple[Any, ...] = ()) -> int:
        """One command, durable when this returns if this part is `synced`; the number of rows that it changed."""
        with self._lock, self._failures():
            return self._connection.execute(command, arguments).rowcount

    def check(self) -> None:
        """Read every page, and hold each index against its table. For start-up.

        Raises:
            StorageFailure: a page was damaged.
        """
        (found,) = self.read("PRAGMA integrity_check(1)")[0]
        if found != "ok":
            raise StorageFailure(f"The journal {self._path} is damaged: {found}.", DAMAGED_FIX)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside becomes durable together, or not at all."""
        with self._lock, self._failures():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as err:  # the latter: a damaged page in SQLite's own words for it
            code = getattr(err, "sqlite_errorcode", 0) & 0xFF
            damaged = isinstance(err, UnicodeDecodeError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            fix = DAMAGED_FIX if damaged else None
            raise StorageFailure(f"The journal {self._path} failed: {err}.", fix) from err
