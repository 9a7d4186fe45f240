"""A worker for `data check` alone: what it answers, what becomes of it, and of what it says besides."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from common.errors import WorkerFailed
from common.resources import read_config
from participant.bench.inspection import Finding, inspect_all
from participant.config import HomeLayout, load_config
from participant.datasets import DataSet

SECRET = "Mrs Miller"
FAKE = """
import socket, sys
from participant.bench.worker_protocol import *
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[sys.argv.index("--socket") + 1])
def say(message):
    link.sendall(message if isinstance(message, bytes) else encode(message))
hello = Hello(pid=1, device="cpu", threads=1, capability="none", versions={{}}, isolated=False)
lines = link.makefile("rb")
{does}
"""
ANSWERS = """
say(hello)
for line in lines:
    asked = TO_WORKER.validate_json(line)
    if isinstance(asked, Stop):
        break
    if asked.data.name == "bad":
        say(WorkerError(code="storage-failure", message="/data/x could not be read: denied."))
    else:
        say(Progress(round=0, activity="preparing"))
        say(Inspected(files=1, documents=2, characters=3, units=2, held_out_units=1, problems=("p",), problems_found=7))
"""


def inspect(home: Path, monkeypatch: pytest.MonkeyPatch, does: str, *names: str) -> list[Finding]:
    """Two data sets, as a worker that `does` something finds them."""
    program = home / "worker.py"
    program.write_text(FAKE.format(does=does))
    monkeypatch.setenv("LLMASOS_PARTICIPANT_WORKER__COMMAND", f'["{sys.executable}", "-P", "{program}"]')
    layout = HomeLayout(home)
    layout.config.write_text(read_config("participant.yaml"))
    sets = [DataSet(name=name, folder=home) for name in names]
    try:
        return list(inspect_all(layout, load_config(home), sets))
    finally:
        assert not list(home.glob(".check-*"))


def test_each_data_set_gets_its_finding_and_an_error_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad, again = inspect(tmp_path, monkeypatch, ANSWERS, "good", "bad", "again")
    assert (good.problems, good.problems_found) == (("p",), 7)
    assert (bad.problems, bad.problems_found) == (("/data/x could not be read: denied.",), 1)
    assert again.inspected == good.inspected


def test_a_worker_that_ends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WorkerFailed, match="ended with code 5 while it read data set 'notes'"):
        inspect(tmp_path, monkeypatch, "say(hello); lines.readline(); sys.exit(5)", "notes")


@pytest.mark.parametrize(
    "does",
    [f"say(b'{SECRET}\\n')", f"say(hello); lines.readline(); say(b'{SECRET}\\n'); lines.readline()"],
    ids=["instead of hello", "instead of an answer"],
)
def test_what_a_worker_says_besides_messages_is_quoted_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, does: str
) -> None:
    with pytest.raises(WorkerFailed) as caught:
        inspect(tmp_path, monkeypatch, does, "notes")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text
