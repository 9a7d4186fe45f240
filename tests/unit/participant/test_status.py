"""status.json: whole at any moment, and honest about a daemon that was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.clock import ManualClock
from participant.status import StatusFile, read_status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status.json"


def test_a_daemon_that_never_ran_says_so(path: Path) -> None:
    assert read_status(path) == {"activity": "never started", "running": False}


def test_what_the_daemon_does_is_written_with_run_and_round(path: Path) -> None:
    status = StatusFile(path, ManualClock())
    status.connection("connected")
    status.doing("train round", run="tiny-0a1b2c", round=3)
    assert read_status(path) == {
        "pid": os.getpid(),
        "connection": "connected",
        "connection_reason": "",
        "activity": "train round",
        "run": "tiny-0a1b2c",
        "round": 3,
        "deadline": "",
        "changed_at": "2026-01-01T00:00:00.000Z",
        "running": True,
    }
    status.doing("waiting for a plan or a round")
    assert (read_status(path)["run"], read_status(path)["round"]) == ("", 0)


def test_nothing_is_written_while_nothing_changes(path: Path) -> None:
    clock = ManualClock()
    status = StatusFile(path, clock)
    status.doing("waiting for a plan or a round")
    clock.advance(seconds=60)
    status.doing("waiting for a plan or a round")
    assert read_status(path)["changed_at"] == "2026-01-01T00:00:00.000Z"
    status.connection("unreachable")
    assert read_status(path)["changed_at"] == "2026-01-01T00:01:00.000Z"


def test_what_waits_is_told_beside_and_what_the_daemon_was_doing_ends_with_it(path: Path) -> None:
    status = StatusFile(path, ManualClock())
    status.doing("train round", run="tiny-0a1b2c", round=3, deadline="2026-01-01T07:00:00.000Z")
    status.tell(plans_waiting=[{"run": "tiny-0a1b2c", "why": "a person decides", "command": "…"}], rounds_held=[{}])
    assert read_status(path)["plans_waiting"][0]["why"] == "a person decides"
    status.stopped()
    shown = read_status(path)
    assert (shown["activity"], shown["run"], shown["deadline"], shown["rounds_held"]) == ("stopped", "", "", [])


def test_an_institution_that_left_stays_so_shown(path: Path) -> None:
    status = StatusFile(path, ManualClock())
    status.doing("left")
    status.stopped()
    assert (read_status(path)["activity"], read_status(path)["running"]) == ("left", False)


def test_a_daemon_that_stopped_or_was_killed_does_not_run(path: Path) -> None:
    StatusFile(path, ManualClock()).stopped()
    assert not read_status(path)["running"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.write_text(json.dumps({"pid": ended.pid, "activity": "train round", "connection": "connected"}))
    assert not read_status(path)["running"]
