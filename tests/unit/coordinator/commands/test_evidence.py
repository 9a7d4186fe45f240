"""evidence export at the coordinator: a checkpoint signed now, whose deltas leave, and no second history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.homes import HomeLock
from common.ledger.heads import log_key
from common.ledger.notes import parse_note
from common.terminal import WIDTH, exit_code_of
from coordinator.cli import app
from coordinator.commands import checkpoints as checkpoints_module
from llmasos.cli import app as llmasos_app
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]


@pytest.fixture
def finished(coordinator: Coordinator) -> Coordinator:
    coordinator.start_run(rounds=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    return coordinator


def export(coordinator: Coordinator, file: Path, *words: str) -> int:
    return exit_code_of(app, ["evidence", "export", str(file), *words, "--home", str(coordinator.layout.home)])


def verify(coordinator: Coordinator, file: Path) -> int:
    pins = [f"--pin={name}={each.key.public.public}" for name, each in coordinator.participants.items()]
    fingerprint = coordinator.state.genesis_place.digest
    return exit_code_of(llmasos_app, ["verify", str(file), "--fingerprint", fingerprint, *pins, "--format", "json"])


def test_with_all_deltas_every_round_is_recomputed_from_the_file(
    finished: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "all.evidence"
    assert export(finished, file, "--with-deltas") == 0
    text = capsys.readouterr().out
    for name in finished.participants:
        assert f"Deltas of {name}: 2. Whoever gets this file can read them." in text
    assert max(len(line) for line in text.splitlines() if str(file) not in line) <= WIDTH
    assert verify(finished, file) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["result"] == "verified"
    (rounds,) = [check for check in report["checks"] if check["name"] == "rounds"]
    assert rounds["examined"] == "2 of 2 recomputed here, equal in every bit"


def test_institutions_measurements_and_deltas_stay_unless_they_are_asked_for(
    finished: Coordinator, tmp_path: Path, capsys: Output
) -> None:
    file = tmp_path / "all.evidence"
    assert export(finished, file, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["metrics"], data["blobs"], data["deltas"], data["runs"]) == (0, 0, {}, [RUN])
    assert b"\nmetrics " not in file.read_bytes()


def test_the_checkpoint_that_is_signed_is_remembered(finished: Coordinator, tmp_path: Path, capsys: Output) -> None:
    assert export(finished, tmp_path / "a.evidence") == 0
    head = parse_note(finished.layout.log_head.read_bytes())
    assert head.text.split("\n")[1] == str(finished.state.size)
    assert head.encode() in (tmp_path / "a.evidence").read_bytes()


def test_a_database_from_a_backup_signs_nothing(finished: Coordinator, tmp_path: Path, capsys: Output) -> None:
    assert export(finished, tmp_path / "a.evidence") == 0
    capsys.readouterr()
    newer = parse_note(finished.layout.log_head.read_bytes())
    with finished.database.transaction() as tx:
        tx._connection.exec_driver_sql(f'DELETE FROM ledger WHERE "index" = {finished.state.size - 1}')
    assert export(finished, tmp_path / "b.evidence") == 3
    assert "error [two-histories]" in capsys.readouterr().err
    assert not (tmp_path / "b.evidence").exists()
    assert parse_note(finished.layout.log_head.read_bytes()) == newer


def test_a_home_without_a_ledger_is_named(tmp_path: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["evidence", "export", str(tmp_path / "f"), "--home", str(tmp_path)]) == 2
    assert "holds no coordinator's ledger" in capsys.readouterr().err


def test_beside_a_running_coordinator_nothing_is_signed_but_by_it(
    finished: Coordinator, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers what it signed last: two who write log.head could leave the smaller of two there."""
    note, size = finished.log.newest(), finished.state.size
    head, log = finished.layout.log_head.read_bytes(), log_key(finished.state.genesis)
    monkeypatch.setattr(checkpoints_module, "_asked", lambda home: (note, log))
    finished.enrol("west", ("trainer",))  # since it was asked
    with HomeLock(finished.layout.home):
        assert export(finished, tmp_path / "all.evidence", "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["entries"], data["covered"], data["withheld"]) == (size, size, 0)
    assert finished.layout.log_head.read_bytes() == head
