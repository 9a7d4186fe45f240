"""A backup into a home that does not exist yet: checked file by file, and there as a whole or not at all.

A restored home may be older than what the daemon said since, so it holds a note, RESTORED, until the daemon, or a command, has
found out what it said.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from common.backup.archive import Archive, FileEntry, Manifest, Side, open_archive
from common.clock import Clock, rfc3339
from common.errors import MalformedBackup, UsageError
from common.homes import atomic_write, private_folder, storage_failure, sync_folder

RESTORED = "restored.json"


def restore(file: Path, home: Path, side: Side, clock: Clock, check: Callable[[Path, Manifest], None]) -> Manifest:
    """Make the home that a backup was taken of.

    Args:
        check: looks at the home while it is still under another name, and raises where it would not do.

    Raises:
        UsageError: there is something at `home` already.
        MalformedBackup: the file is none, of another side, damaged, or was cut off.
        StorageFailure: the disk says no. Nothing is left at `home` in any of these cases.
    """
    expect_no_home(home)
    making = home.with_name(f".{home.name}.{secrets.token_hex(6)}.making")
    try:
        with open_archive(file) as archive:
            manifest = archive.manifest
            if manifest.side != side:
                raise MalformedBackup(
                    f"{file} is a backup of a {manifest.side}, expected one of a {side}.",
                    f"Restore it with llmasos-{manifest.side} restore.",
                )
            private_folder(making)
            _extract(archive, making)
        note = {"made_at": manifest.made_at, "entries": manifest.entries, "restored_at": rfc3339(clock.now())}
        atomic_write(making / RESTORED, json.dumps(note | {"settled": None}).encode())
        check(making, manifest)
        expect_no_home(home)
        making.rename(home)
        sync_folder(home.parent)
    except OSError as err:
        raise storage_failure(home, err) from err
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return manifest


def expect_no_home(home: Path) -> None:
    """
    Raises:
        UsageError: the folder holds something.
    """
    if home.is_symlink() or (home.exists() and (not home.is_dir() or any(home.iterdir()))):
        raise UsageError(f"{home} is there already, and is not empty.", "Name a home folder that does not exist yet.")


def _extract(archive: Archive, into: Path) -> None:
    for entry, pieces in archive.members():
        path = into / entry.path
        for folder in reversed(path.relative_to(into).parents):
            private_folder(into / folder)
        _write(path, entry, pieces)


def _write(path: Path, entry: FileEntry, pieces: Iterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        for data in pieces:
            out.write(data)
        out.flush()
        os.fsync(out.fileno())


# --- the note ------------------------------------------------------------------------------------------------------------


def restoration(home: Path) -> dict[str, object] | None:
    """What the note says: made_at, entries, restored_at, settled; None where this home was never restored."""
    path = home / RESTORED
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise MalformedBackup(
            f"{path} cannot be read: {err}.", "Restore the backup again, into another folder."
        ) from err
    if not isinstance(found, dict):
        raise MalformedBackup(f"{path} is not what restore wrote.", "Restore the backup again, into another folder.")
    return found


def mark_behind(home: Path, clock: Clock, **found: object) -> None:
    """Note that this home holds less than its daemon said, whoever put it back: as after `restore`, until it is settled.

    Of a home that is so marked already, what was found is noted besides.
    """
    note = restoration(home)
    if note is None or note.get("settled"):
        note = {"made_at": None, "restored_at": rfc3339(clock.now()), "settled": None}
    atomic_write(home / RESTORED, json.dumps(note | found).encode())


def settle(home: Path, **found: object) -> None:
    """The daemon knows now what it said since the backup; from here on the home is like any other."""
    note = restoration(home)
    if note is not None:
        atomic_write(home / RESTORED, json.dumps(note | {"settled": found}).encode())
