"""Snapshots beside training: a copy, one at a time, and a crash in the middle leaves the one before."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import StorageFailure  # noqa: E402
from llmasos.training import background  # noqa: E402
from llmasos.training.background import BackgroundWriter  # noqa: E402
from llmasos.training.snapshot import Record, Snapshot, SnapshotFolder, State  # noqa: E402
from tests.unit.llmasos.training.test_snapshot import a_record, a_state  # noqa: E402

pytestmark = pytest.mark.torch


class SlowFolder(SnapshotFolder):
    """A disk that waits until `let_go` is set, or refuses."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.let_go, self.refuses = threading.Event(), False

    def write(self, record: Record, state: State) -> Snapshot:
        assert self.let_go.wait(30)
        if self.refuses:
            raise StorageFailure("The disk is full.")
        return super().write(record, state)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SlowFolder]:
    made = SlowFolder(tmp_path / "snapshots")
    yield made
    made.let_go.set()


def newest(folder: SnapshotFolder) -> Snapshot:
    found = folder.newest_of(a_record())
    assert found is not None
    return found


def test_what_training_changes_after_the_boundary_is_in_no_snapshot(folder: SlowFolder) -> None:
    state = a_state()
    with BackgroundWriter(folder, lambda written: None) as writer:
        assert writer.begin(a_record(), state, copied=True)
        for value in (*state.weights.values(), *state.moments.values()):
            value.fill_(99.0)
        folder.let_go.set()
    assert newest(folder).load().weights["w"].tolist() == [0, 1, 2, 3]
    assert newest(folder).load().moments["w.exp_avg"].tolist() == [1, 1, 1, 1]


def test_one_at_a_time_is_written_and_training_does_not_wait(folder: SlowFolder) -> None:
    told: list[int] = []
    with BackgroundWriter(folder, lambda written: told.append(written.record.step)) as writer:
        assert writer.begin(a_record(step=1), a_state(), copied=True)
        assert not writer.begin(a_record(step=2), a_state(), copied=True)
        assert told == []
        folder.let_go.set()
        writer.finish()
        assert writer.begin(a_record(step=3), a_state(), copied=True)
    assert told == [1, 3]
    assert newest(folder).record.step == 3


def test_a_disk_that_refuses_is_told_at_the_next_occasion(folder: SlowFolder) -> None:
    folder.refuses = True
    folder.let_go.set()
    with BackgroundWriter(folder, lambda written: None) as writer:
        assert writer.begin(a_record(), a_state(), copied=True)
        with pytest.raises(StorageFailure, match="The disk is full"):
            writer.finish()
        writer.finish()
    writer = BackgroundWriter(folder, lambda written: None)
    with pytest.raises(StorageFailure, match="The disk is full"), writer:
        writer.begin(a_record(), a_state(), copied=True)
    with pytest.raises(ZeroDivisionError), writer:
        print(writer.begin(a_record(), a_state(), copied=True) / 0)


def test_where_memory_is_too_little_for_a_copy_training_waits(
    folder: SlowFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(state: Any) -> State:
        raise MemoryError

    monkeypatch.setattr(background, "_copy", no_memory)
    folder.let_go.set()
    with BackgroundWriter(folder, lambda written: None) as writer:
        assert writer.begin(a_record(), a_state(), copied=True)
        assert newest(folder).record.step == 2


DYING = """
import os, signal, sys
from pathlib import Path
from llmasos.training import state_file
from llmasos.training.snapshot import SnapshotFolder
from tests.unit.llmasos.training.test_snapshot import a_record, a_state

folder = SnapshotFolder(Path(sys.argv[1]))
folder.write(a_record(step=2), a_state())
written = 0

def dying(*arguments):
    global written
    written += 1
    if written == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

name = sys.argv[3]
real = getattr(os, name)
setattr(os, name, dying)
folder.write(a_record(step=4), a_state())
"""


@pytest.mark.parametrize(("call", "times"), [("fsync", 1), ("fsync", 3), ("rename", 1)])
def test_a_crash_in_the_middle_leaves_the_snapshot_before(tmp_path: Path, call: str, times: int) -> None:
    """Killed with a part on disk, before the folder has its name, at the renaming itself."""
    words = [sys.executable, "-c", DYING, str(tmp_path), str(times), call]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    folder = SnapshotFolder(tmp_path)
    assert newest(folder).record.step == 2
    assert newest(folder).load().weights["w"].tolist() == [0, 1, 2, 3]
    folder.write(a_record(step=5), a_state())
    assert [path.name for path in tmp_path.iterdir()] == ["round-00000003-step-00000005"]
