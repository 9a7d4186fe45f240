"""`metrics delete`: what it asks before, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import UsageError
from common.terminal import exit_code_of
from coordinator.cli import app
from coordinator.commands import metrics


class Operator:
    """A session as far as this command uses one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.deleted = 6
        self.failure: UsageError | None = None

    def delete_metrics(self, run: str, institution: str = "") -> int:
        self.asked.append((run, institution))
        if self.failure is not None:
            raise self.failure
        return self.deleted


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    made = Operator()

    @contextmanager
    def session(home: Path) -> Iterator[Operator]:
        yield made

    monkeypatch.setattr(metrics, "operator_session", session)
    return made


def run(capsys: pytest.CaptureFixture[str], words: Sequence[str]) -> tuple[int, str, str]:
    code = exit_code_of(app, ["metrics", "delete", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_everybodys_or_one_institutions_are_deleted(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, ["tiny", "--yes"]) == (0, "6 records are deleted.\n", "")
    _, out, _ = run(capsys, ["tiny", "--yes", "--institution", "north", "--format", "json"])
    assert json.loads(out) == {"run": "tiny", "institution": "north", "deleted": 6}
    operator.deleted = 0
    assert run(capsys, ["tiny", "--yes"])[1] == "Nothing was kept, so nothing was deleted.\n"
    assert operator.asked == [("tiny", ""), ("tiny", "north"), ("tiny", "")]


def test_without_yes_it_asks_and_without_an_answer_nothing_is_deleted(
    operator: Operator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda text, **_: questions.append(text))
    code, out, err = run(capsys, ["tiny", "--institution", "north"])
    assert (code, out, err) == (130, "", "interrupted\n")
    assert questions == ["Delete for good what north measured in tiny?"]
    assert operator.asked == []


def test_a_refusal_is_told_with_its_fix(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    operator.failure = UsageError("Run tiny goes on.", "Wait until it has ended.")
    code, _, err = run(capsys, ["tiny", "--yes"])
    assert (code, err) == (2, "error [usage]: Run tiny goes on.\n  fix: Wait until it has ended.\n")


def test_no_name_is_asked_for_that_cannot_be_one(operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, ["tiny", "--yes", "--institution", "North!"])
    assert code == 2
    assert err.startswith("error [invalid-name]")
    assert operator.asked == []
