"""What goes into a backup: files of a home as they lie, and databases as copies that were consistent at one instant."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from common.backup.archive import Source
from common.errors import StorageFailure


def copy_database(database: Path, copy: Path) -> None:
    """A copy of a SQLite file as one transaction sees it, also while a daemon writes (SQLite's online backup).

    Raises:
        StorageFailure: it cannot be read or written, or the copy is damaged.
    """
    try:
        with (
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as source,
            closing(sqlite3.connect(copy, isolation_level=None)) as target,
        ):
            copy.chmod(0o600)
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file: the daemon makes a write-ahead log again
            (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as err:
        raise StorageFailure(f"{database} cannot be copied: {err}.") from err
    if found != "ok":
        raise StorageFailure(f"{database} is damaged: {found}.", "Run verify; restore an older backup if it fails.")


def files_of(home: Path, names: Iterable[str], *, optional: bool = False) -> Iterator[Source]:
    """Regular files of a home by these paths, folders with all that is in them; what is not there is left out.

    Links, sockets and hidden files, which are what is being written, are left out too.
    """
    for name in names:
        start = home / name
        found = sorted(start.rglob("*")) if start.is_dir() else [start]
        for path in found:
            inside = path.relative_to(home)
            hidden = any(part.startswith(".") for part in inside.parts)
            if path.is_file() and not path.is_symlink() and not hidden:
                yield Source(inside.as_posix(), path, optional)
