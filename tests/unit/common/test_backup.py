"""A backup is one file, whole or absent, and comes out as it went in or not at all."""

from __future__ import annotations

import json
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from common.backup.archive import Manifest, Source, open_archive, write_archive
from common.backup.collecting import copy_database, files_of
from common.backup.restoring import RESTORED, restoration, restore, settle
from common.clock import ManualClock
from common.errors import LLMasOSError, MalformedBackup, StorageFailure, UsageError

MANIFEST = Manifest(
    side="participant",
    name="north",
    genesis="ab" * 32,
    made_at="2030-01-01T00:00:00.000Z",
    entries=7,
    blobs="needed",
    files=(),
)
CONTENT = {"identity/signing.key.pem": b"secret", "journal.sqlite": b"x" * 3_000_000, "empty": b""}


def sources(folder: Path) -> list[Source]:
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return [Source(path, folder / path) for path in CONTENT]


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    file = tmp_path / "backup.tar"
    write_archive(file, sources(tmp_path / "from"), MANIFEST)
    return file


def put_back(file: Path, home: Path, check: Callable[[Path, Manifest], None] = lambda home, manifest: None) -> None:
    restore(file, home, "participant", ManualClock(), check)


def test_what_went_in_comes_out_and_only_its_owner_reads_it(backup: Path, tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    put_back(backup, home)
    assert {path: (home / path).read_bytes() for path in CONTENT} == CONTENT
    modes = {
        stat.S_IMODE(path.stat().st_mode) for path in [backup, *(path for path in home.rglob("*") if path.is_file())]
    }
    folders = {stat.S_IMODE(path.stat().st_mode) for path in [home, home / "identity"]}
    assert (modes, folders) == ({0o600}, {0o700})
    note = restoration(home)
    assert note is not None
    assert (note["entries"], note["settled"]) == (7, None)


def test_no_file_is_written_over(backup: Path, tmp_path: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(StorageFailure, match="file exists"):
        write_archive(backup, sources(tmp_path / "from"), MANIFEST)
    assert backup.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_source_that_is_gone_leaves_no_file_unless_it_may_be(tmp_path: Path) -> None:
    gone = Source("gone", tmp_path / "gone")
    with pytest.raises(StorageFailure, match="no such file"):
        write_archive(tmp_path / "b.tar", [gone], MANIFEST)
    assert list(tmp_path.iterdir()) == []
    made = write_archive(tmp_path / "b.tar", [Source("gone", tmp_path / "gone", optional=True)], MANIFEST)
    assert made.files == ()


def test_a_home_that_holds_something_is_not_touched(backup: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    put_back(backup, home)
    with pytest.raises(UsageError, match="is there already, and is not empty"):
        put_back(backup, home)


def test_a_home_that_a_check_refuses_is_not_there(backup: Path, tmp_path: Path) -> None:
    def refuse(home: Path, manifest: Manifest) -> None:
        assert (home / RESTORED).exists()
        raise MalformedBackup("No.")

    with pytest.raises(MalformedBackup, match=r"No\."):
        put_back(backup, tmp_path / "home", refuse)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "from"]


def test_a_backup_of_the_other_side_says_which_command_takes_it(backup: Path, tmp_path: Path) -> None:
    with pytest.raises(MalformedBackup, match=r"a backup of a participant, expected one of a coordinator") as caught:
        restore(backup, tmp_path / "home", "coordinator", ManualClock(), lambda home, manifest: None)
    assert caught.value.fix == "Restore it with llmasos-participant restore."


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_part_of_a_backup_is_none(backup: Path, tmp_path: Path, share: float) -> None:
    data = backup.read_bytes()
    backup.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MalformedBackup):
        put_back(backup, tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("where", [b"secret", b"xxxxxxxx", b'"entries"', b"identity/signing"])
def test_a_changed_byte_is_found(backup: Path, tmp_path: Path, where: bytes) -> None:
    data = bytearray(backup.read_bytes())
    data[data.index(where) + 1] ^= 1
    backup.write_bytes(data)
    with pytest.raises(MalformedBackup):
        put_back(backup, tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a//b", "."])
def test_a_path_that_leads_out_of_the_home_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(MalformedBackup, match="is no path inside a home folder"):
        write_archive(tmp_path / "b.tar", [Source(path, tmp_path / "f")], MANIFEST)
    assert not (tmp_path / "b.tar").exists()


def test_a_link_in_a_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    """As somebody makes it by hand, who leaves the manifest as it was."""
    other = tmp_path / "other.tar"
    with tarfile.open(backup) as old, tarfile.open(other, "w") as new:
        for info in old.getmembers():
            if info.name == "empty":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            new.addfile(info, old.extractfile(info.name) if info.isreg() else None)
    with pytest.raises(MalformedBackup, match="empty in the backup is no file of 0 bytes"):
        put_back(other, tmp_path / "home")


def test_a_copy_of_a_database_is_one_instant_while_another_process_writes(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (n INTEGER)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        copy_database(tmp_path / "a.sqlite", tmp_path / "b.sqlite")
        writer.execute("COMMIT")
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(1,)]
    assert sorted(path.name for path in tmp_path.glob("b.sqlite*")) == ["b.sqlite"]


def test_a_damaged_database_is_not_backed_up(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as database:
        database.execute("CREATE TABLE t (n TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
        database.commit()
    data = bytearray((tmp_path / "a.sqlite").read_bytes())
    data[8192:12288] = b"\xff" * 4096
    (tmp_path / "a.sqlite").write_bytes(data)
    with pytest.raises(StorageFailure, match=r"a\.sqlite (is damaged|cannot be copied)"):
        copy_database(tmp_path / "a.sqlite", tmp_path / "b.sqlite")


def test_links_and_what_is_being_written_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "one").write_bytes(b"1")
    (tmp_path / "d" / ".two.tmp").write_bytes(b"2")
    (tmp_path / "d" / "three").symlink_to("/etc/passwd")
    assert [source.path for source in files_of(tmp_path, ("d", "absent"))] == ["d/e/one"]


def test_a_home_is_settled_once_and_says_what_was_found(backup: Path, tmp_path: Path) -> None:
    put_back(backup, tmp_path / "home")
    settle(tmp_path / "home", entries=9)
    note = restoration(tmp_path / "home")
    assert note is not None
    assert note["settled"] == {"entries": 9}
    settle(tmp_path, entries=9)
    assert restoration(tmp_path) is None
    (tmp_path / "home" / RESTORED).write_text(json.dumps([]))
    with pytest.raises(LLMasOSError, match="is not what restore wrote"):
        restoration(tmp_path / "home")


def test_an_archive_names_every_file_with_its_digest(backup: Path) -> None:
    with open_archive(backup) as archive:
        assert [entry.path for entry in archive.manifest.files] == list(CONTENT)
        assert {entry.path: b"".join(pieces) for entry, pieces in archive.members()} == CONTENT
