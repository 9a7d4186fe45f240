"""llmasos-participant data: what it prints, for people and for programs, and its exit codes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from common.resources import config_path, read_config
from common.terminal import exit_code_of
from participant.cli import app
from participant.config import HomeLayout

Output = pytest.CaptureFixture[str]
SECRET = "Mrs Miller"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HomeLayout:
    """The home of a participant that has joined, as LLMASOS_HOME."""
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    layout = HomeLayout(tmp_path / "home")
    layout.home.mkdir()
    layout.config.write_text(read_config("participant.yaml"))
    return layout


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    records = [{"note": f"note {number}", "patient_id": number % 4} for number in range(20)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    (folder / "b.csv").write_text("patient_id,note\n7,seven\n")
    return folder


def data(*words: str) -> int:
    return exit_code_of(app, ["data", *words])


def add(notes: Path, *words: str) -> int:
    return data("add", "notes", str(notes), "--unit-field", "patient_id", "--text-column", "note", *words)


def as_json(capsys: Output) -> Any:
    return json.loads(capsys.readouterr().out)


def test_adding_says_what_will_happen(home: HomeLayout, notes: Path, capsys: Output) -> None:
    assert add(notes, "--purpose", "research") == 0
    told = capsys.readouterr().out
    for words in (
        "Data set notes added.",
        f"folder        {notes}",
        "files         1 .csv, 1 .jsonl (",
        "text          field 'note' of .jsonl and .csv records, else the whole file",
        "unit          field 'patient_id'; none is divided between training and held-out",
        "purpose       research",
        f"{home.jobs}/RUN/tokens.",
        "Next: llmasos-participant data check notes",
    ):
        assert words in told
    assert max(len(line) for line in told.splitlines() if str(notes.parent) not in line) <= 80


def test_data_sets_are_listed_shown_and_forgotten(home: HomeLayout, notes: Path, capsys: Output) -> None:
    assert data("list") == 0
    assert capsys.readouterr().out == "No data set yet. Add one: llmasos-participant data add NAME DIR.\n"
    assert add(notes, "--format", "quiet") == 0
    assert capsys.readouterr().out == "notes\n"
    assert data("list", "--format", "json") == 0
    assert as_json(capsys) == [
        {
            "name": "notes",
            "folder": str(notes),
            "purpose": "",
            "unit_field": "patient_id",
            "text_column": "note",
            "tasks": [],
        }
    ]
    assert data("show", "notes", "--format", "quiet") == 0
    assert capsys.readouterr().out == f"{notes}\n"
    assert data("show", "notes") == 0
    assert f"named in      {home.data}/notes.yaml" in capsys.readouterr().out
    assert data("remove", "notes") == 0
    assert capsys.readouterr().out == f"Data set notes is forgotten; {notes} stays as it is.\n"
    assert data("list", "--format", "json") == 0
    assert as_json(capsys) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["add", "N", "."], 2, "error [invalid-name]: 'N' is not a name."),
        (["add", "n", "absent"], 2, "absent is not a folder that can be opened."),
        (["add", "n", "{notes}", "--purpose", "x" * 201], 2, "--purpose has 201 characters, expected at most 200."),
        (["show", "n"], 2, "error [unknown-object]: No data set is named 'n'; known: none yet."),
        (["check"], 2, "error [unknown-object]: There is no data set to check."),
        (["purge"], 2, "error [usage]: Expected a run, or --all."),
        (["purge", "run", "--all"], 2, "error [usage]: Expected a run, or --all."),
        (["purge", "run"], 2, "error [unknown-object]: Run 'run': no such run has a job folder here"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(
    notes: Path, capsys: Output, words: list[str], code: int, message: str
) -> None:
    assert data(*(word.replace("{notes}", str(notes)) for word in words)) == code
    told = capsys.readouterr().err
    assert message in told
    assert "\n  fix: " in told


def test_without_a_home_it_is_said_to_join_first(home: HomeLayout, capsys: Output) -> None:
    home.config.unlink()
    assert data("list") == 2
    assert "error [not-initialised]" in capsys.readouterr().err


@pytest.mark.torch
def test_checking_reads_all_by_a_worker_and_tells_problems_without_text(
    home: HomeLayout, notes: Path, tmp_path: Path, capsys: Output
) -> None:
    pytest.importorskip("torch")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.txt").write_text("a line\nanother line\n")
    assert add(notes, "--format", "quiet") == data("add", "plain", str(plain), "--format", "quiet") == 0
    capsys.readouterr()
    with (notes / "b.csv").open("a") as file:
        file.write(f",{SECRET}\n")
    assert data("check") == 2
    told = capsys.readouterr()
    for row in (
        "files         2",
        "documents     22",
        "units         5",
        "held out      about 1 where a plan holds out a tenth",
        "without unit  1",
        f"problem       {notes}/b.csv:3 names no unit: field 'patient_id' is absent or empty.",
        "units         1, each document is one",
        "held out      the end of the only document",
        "problems      none",
    ):
        assert row in told.out
    assert "error [unreadable-data]: Problems were found in notes (1)." in told.err
    assert SECRET not in told.out + told.err
    assert data("check", "plain", "--format", "json") == 0
    assert as_json(capsys)["problems"] == []
    assert not list(home.home.glob(".check-*"))
    assert SECRET not in home.worker_log.read_text()


@pytest.mark.torch
def test_checking_for_a_plan_reads_the_fields_that_its_task_names(
    home: HomeLayout, tmp_path: Path, capsys: Output
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "a.csv").write_text("source,target\na,b\nc,d\n")
    assert data("add", "pairs", str(tmp_path / "pairs"), "--format", "quiet") == 0
    plan = str(config_path("plans/translation.yaml"))
    capsys.readouterr()
    assert data("check", "pairs", "--plan", plan, "--format", "json") == 0
    assert as_json(capsys)["documents"] == 2
    assert data("check", "pairs") == 2
    told = capsys.readouterr()
    assert "a.csv:1 has no column 'text'" in told.out
    assert "read as a plan says: llmasos-participant data check --plan PLAN.yaml" in " ".join(told.err.split())


def test_a_data_set_says_which_tasks_it_is_for_and_other_plans_pass_it_over(
    home: HomeLayout, notes: Path, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "a.csv").write_text("source,target\na,b\nc,d\n")
    assert data("add", "pairs", str(tmp_path / "pairs"), "--task", "seq2seq", "--task", "german") == 0
    assert (
        "tasks         seq2seq, german; german: only in a mixture that has a task of this name"
        in capsys.readouterr().out
    )
    assert data("check", "--plan", str(config_path("plans/tiny.yaml"))) == 2
    assert (
        "No data set here is for the plan's task (causal-lm): pairs is for seq2seq, german." in capsys.readouterr().err
    )
    assert data("list") == 0
    assert "seq2seq, german" in capsys.readouterr().out
    assert data("remove", "pairs") == data("add", "pairs", str(tmp_path / "pairs"), "--task", "seq2seq") == 0
    capsys.readouterr()
    assert data("check") == 2
    assert "A plan says which fields are read: pairs is for seq2seq." in capsys.readouterr().err
    assert data("add", "n", str(notes), "--task", "Seq2Seq") == 2
    assert "'Seq2Seq' is not a name" in capsys.readouterr().err


def test_a_worker_that_does_not_start_is_told_and_leaves_nothing(
    home: HomeLayout, notes: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = json.dumps([sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setenv("LLMASOS_PARTICIPANT_WORKER__COMMAND", command)
    assert add(notes) == 0
    assert data("check", "notes") == 1
    assert "error [worker-failed]: The worker ended with code 3 before it was ready." in capsys.readouterr().err
    assert not list(home.home.glob(".check-*"))


def test_purging_says_what_went_and_how_much(home: HomeLayout, notes: Path, capsys: Output) -> None:
    job = home.jobs / "run-1"
    (job / "tokens" / "3f").mkdir(parents=True)
    (job / "plan.json").write_text("{}")
    (job / "tokens" / "3f" / "train.tokens").write_bytes(b"x" * 1234)
    assert add(notes) == 0
    assert data("remove", "notes") == 0
    assert "Token files made before may hold its text, for run-1." in capsys.readouterr().out
    home.status.write_text(json.dumps({"pid": os.getpid(), "activity": "train round"}))
    assert data("purge", "run-1") == 2
    assert "error [data-in-use]: The daemon" in capsys.readouterr().err
    home.status.unlink()
    assert data("purge", "run-1") == 0
    assert capsys.readouterr().out == (f"          1,234 bytes  {job}/tokens\nRemoved: 1,234 bytes, files: 1.\n")
    assert data("purge", "--all", "--format", "json") == 0
    assert as_json(capsys) == []
