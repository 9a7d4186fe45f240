"""Home folders: private, locked, written whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import HomeLocked, StorageFailure
from common.homes import HomeLock, atomic_write, private_folder

HOLD = """
import sys
from pathlib import Path
from common.homes import HomeLock
with HomeLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_folder_is_its_owners_alone(tmp_path: Path) -> None:
    assert mode(private_folder(tmp_path / "a" / "b")) == 0o700


def test_an_open_folder_becomes_private(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    assert mode(private_folder(folder)) == 0o700


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailure, match=r"file: file exists\."):
        private_folder(tmp_path / "file")


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    atomic_write(path, b"a much longer first version")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_write_that_need_not_be_durable_syncs_nothing_and_is_whole_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    atomic_write(tmp_path / "file", b"first")
    assert len(synced) == 2, "the file and its folder"
    atomic_write(tmp_path / "file", b"second", durable=False)
    assert len(synced) == 2
    assert (tmp_path / "file").read_bytes() == b"second"
    assert mode(tmp_path / "file") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_mode_is_kept_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        atomic_write(tmp_path / "public", b"", mode=0o644)
    finally:
        os.umask(old)
    assert mode(tmp_path / "public") == 0o644


def test_a_write_into_no_folder_is_a_storage_failure(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"none/x: no such file or directory\."):
        atomic_write(tmp_path / "none" / "x", b"")


def test_a_write_that_cannot_replace_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageFailure, match=r"taken: is a directory\."):
        atomic_write(tmp_path / "taken", b"")
    assert os.listdir(tmp_path) == ["taken"]


def test_a_home_is_held_by_one_process_and_the_other_is_named(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HomeLocked, match=rf"is in use by the process {holder.pid}\."), HomeLock(tmp_path):
            pass
        holder.kill()
    with HomeLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with HomeLock(tmp_path):
            pass


def test_two_locks_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with HomeLock(tmp_path), pytest.raises(HomeLocked, match="in use"), HomeLock(tmp_path):
        pass


def test_a_home_that_is_not_there_is_a_storage_failure(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"none/lock: no such file or directory\."), HomeLock(tmp_path / "none"):
        pass
