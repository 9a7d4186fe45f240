"""llmasos-participant policy: what it means, and whether it is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.resources import read_config
from common.terminal import WIDTH, exit_code_of
from participant.cli import app

Output = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with the shipped files."""
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path))
    for name in ("participant.yaml", "policy.yaml"):
        (tmp_path / name).write_text(read_config(name))
    return tmp_path


def test_a_policy_is_shown_in_words(home: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["policy", "show"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("answer        ask: a person decides on every plan that breaks no rule\n")
    assert max(len(line) for line in out.splitlines() if str(home) not in line) <= WIDTH


def test_a_policy_is_shown_to_programs(home: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["policy", "show", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["policy"]["budgets"]["gpu_hours"] == 50
    assert len(shown["digest"]) == 64


def test_a_good_policy_is_valid(home: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["policy", "check"]) == 0
    assert capsys.readouterr().out == f"{home}/policy.yaml: valid. It answers ask to plans that break no rule.\n"


def test_a_policy_may_be_checked_before_it_is_put_in_place(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "new.yaml"
    file.write_text("answer: accept\nmax_round: 3\n")
    assert exit_code_of(app, ["policy", "check", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"error [invalid-configuration]: {file}:2: max_round: unknown field; did you mean 'max_rounds'?" in err
    assert "fix: Correct it, then: llmasos-participant policy check FILE." in err


def test_a_home_without_a_participant_is_told_apart(tmp_path: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["policy", "show", "--home", str(tmp_path)]) == 2
    assert "error [not-initialised]" in capsys.readouterr().err
