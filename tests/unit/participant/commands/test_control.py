"""pause, resume and leave: what a person orders, and what is said about it."""

from __future__ import annotations

import io
import json
from datetime import datetime
from pathlib import Path

import pytest

from common.terminal import WIDTH
from participant.memory.orders import Order, Orders
from participant.memory.records import Records
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome

Output = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> ParticipantHome:
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    return ParticipantHome(tmp_path / "home", coordinator)


def order(home: ParticipantHome, kind: str) -> Order | None:
    orders = Orders(home.layout.journal)
    try:
        return orders.get(kind)  # type: ignore[arg-type]
    finally:
        orders.close()


def events(home: ParticipantHome) -> list[str]:
    records = Records(home.layout.journal)
    try:
        return [event.event for event in records.events()]
    finally:
        records.close()


def test_a_pause_stands_until_resumed(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("pause") == 0
    shown = capsys.readouterr().out
    assert "Paused after the round in progress, until: llmasos-participant resume." in shown
    assert "No daemon runs here; the order counts when it is started" in shown
    found = order(home, "pause")
    assert found is not None
    assert found.payload == {"until": "", "now": False}
    assert home.run("resume") == 0
    assert "The pause is over." in capsys.readouterr().out
    assert order(home, "pause") is None
    assert home.run("resume") == 0
    assert "There was no pause." in capsys.readouterr().out
    assert events(home) == ["ordered: pause", "resumed"]


def test_a_pause_may_be_at_once_and_until_a_time(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("pause", "--until", "2h", "--now", "--format", "json") == 0
    payload = json.loads(capsys.readouterr().out)
    assert payload["now"] is True
    assert datetime.fromisoformat(payload["until"]).tzinfo is not None


@pytest.mark.parametrize("text", ["soon", "2020-01-01T00:00:00Z"])
def test_a_time_that_is_none_orders_nothing(home: ParticipantHome, capsys: Output, text: str) -> None:
    assert home.run("pause", "--until", text) == 2
    assert capsys.readouterr().err.startswith("error [usage]: --until")
    assert order(home, "pause") is None


def test_leaving_says_what_is_deleted_and_what_stays_and_exports_the_evidence_first(
    home: ParticipantHome, capsys: Output
) -> None:
    home.follow()
    assert home.run("leave", "--after-round", "--yes") == 0
    shown = capsys.readouterr()
    assert "A trained model does not unlearn what it learned." in " ".join(shown.err.split())
    assert "every delta of north that the coordinator still holds" in shown.err
    assert all(len(line) <= WIDTH for line in shown.err.splitlines())
    assert f"Evidence: {home.layout.evidence}" in shown.out
    assert "It carries the order out when it is started" in shown.out
    assert (home.layout.evidence / "genesis.json").exists()
    found = order(home, "leave")
    assert found is not None
    assert found.payload == {"after_round": True}


def test_leaving_asks_and_no_is_no(home: ParticipantHome, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert home.run("leave", "--now") == 130
    assert "Leave?" in capsys.readouterr().err
    assert order(home, "leave") is None


@pytest.mark.parametrize("words", [(), ("--now", "--after-round")])
def test_leaving_needs_one_word_on_when(home: ParticipantHome, capsys: Output, words: tuple[str, ...]) -> None:
    assert home.run("leave", "--yes", *words) == 2
    assert "Expected one of --after-round and --now." in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pause", "resume", "leave"])
def test_a_folder_without_a_participant_is_a_usage_error(tmp_path: Path, capsys: Output, command: str) -> None:
    from common.terminal import exit_code_of
    from participant.cli import app

    words = [command, "--home", str(tmp_path / "none"), *(["--now", "--yes"] if command == "leave" else [])]
    assert exit_code_of(app, words) == 2
    assert "error [not-initialised]" in capsys.readouterr().err
