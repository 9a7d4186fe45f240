"""`join` and `doctor`: what they print, for people and for programs, and their exit codes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.errors import PortBlocked
from common.terminal import exit_code_of
from participant import joining
from participant.cli import app
from participant.config import HomeLayout
from participant.policy import load_policy
from tests.support.coordinators import Coordinator
from tests.support.enrolling import Desk
from tests.support.null_worker import COMMAND

Output = pytest.CaptureFixture[str]


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    made = Coordinator(tmp_path / "coordinator")
    made.clock.advance(seconds=(SystemClock().now() - made.clock.now()).total_seconds())
    return made


@pytest.fixture(autouse=True)
def desk(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(coordinator)
    monkeypatch.setattr(joining, "enrol", made.enrol)
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    return made


@pytest.fixture
def paper(coordinator: Coordinator, tmp_path: Path) -> Path:
    path = tmp_path / "west.inv"
    path.write_text(coordinator.invite("west").armoured())
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.md").write_text("text")
    return tmp_path / "text"


def run(*argv: str | Path) -> int:
    return exit_code_of(app, [str(word) for word in argv])


# --- join ------------------------------------------------------------------------------------------------------------------


def test_join_says_of_what_by_which_policy_and_what_is_next(
    coordinator: Coordinator, paper: Path, data: Path, tmp_path: Path, capsys: Output
) -> None:
    home = tmp_path / "west"
    assert run("join", paper, "--home", home, "--data", data) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0] == f"west is a member of hospitals (ledger index {coordinator.state.size - 1})."
    assert lines[1] == f"Fingerprint of the consortium: {coordinator.state.genesis_place.digest}"
    assert f"Your policy, {home / 'policy.yaml'}:" in lines
    assert re.search(r"^answer +ask: a person decides on every plan", shown.out, re.MULTILINE)
    steps = [line.strip() for line in lines[lines.index("Next:") + 1 :]]
    assert steps == [f"llmasos-participant {command} --home {home}" for command in ("doctor", "start", "plan list")]


def test_without_data_the_first_step_is_to_add_some(paper: Path, tmp_path: Path, capsys: Output) -> None:
    home = tmp_path / "west"
    assert run("join", "--invitation-file", paper, "--home", home, "--answer", "accept") == 0
    shown = capsys.readouterr().out
    assert f"Next:\n  llmasos-participant data add NAME DIR --home {home}\n" in shown
    assert "plan list" not in shown
    assert load_policy(HomeLayout(home).policy).policy.answer == "accept"


@pytest.mark.parametrize("words", [("-",), ("--invitation-file", "-")], ids=["argument", "option"])
def test_join_takes_an_invitation_from_standard_input_and_answers_programs_in_json(
    coordinator: Coordinator,
    paper: Path,
    tmp_path: Path,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Dear colleague,\n> {paper.read_text()}\nBest regards"))
    home = tmp_path / "west"
    assert run("join", *words, "--home", home, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "institution": "west",
        "consortium": "hospitals",
        "fingerprint": coordinator.state.genesis_place.digest,
        "ledger_index": coordinator.state.size - 1,
        "home": str(home),
        "policy": str(home / "policy.yaml"),
        "answer": "ask",
    }


@pytest.mark.parametrize("words", [(), ("a.inv", "--invitation-file", "b.inv")], ids=["none", "two"])
def test_one_invitation_is_expected(tmp_path: Path, capsys: Output, words: tuple[str, ...]) -> None:
    assert run("join", *words, "--home", tmp_path / "west") == 2
    assert re.match(
        r"error \[usage\]: Expected one invitation, got (none|2)\.\n  fix: .*join FILE", capsys.readouterr().err
    )


@pytest.mark.parametrize("content", [b"\xff\xfe no text", b"Dear colleague,\nplease join us.\n"])
def test_what_is_no_invitation_is_refused(tmp_path: Path, capsys: Output, content: bytes) -> None:
    (tmp_path / "west.inv").write_bytes(content)
    assert run("join", tmp_path / "west.inv", "--home", tmp_path / "west") == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.match(r"error \[invalid-invitation\]: .*\n  fix: \S", shown.err)
    assert not (tmp_path / "west").exists()


def test_a_fingerprint_is_taken_as_people_write_it_and_compared_first(
    coordinator: Coordinator, desk: Desk, paper: Path, tmp_path: Path, capsys: Output
) -> None:
    digest, home = coordinator.state.genesis_place.digest.upper(), tmp_path / "west"
    assert run("join", paper, "--home", home, "--fingerprint", digest[:8]) == 2
    assert "has 8 characters, expected 64 hexadecimal digits" in capsys.readouterr().err
    wrong = ("0" if digest[0] != "0" else "1") + digest[1:]
    assert run("join", paper, "--home", home, "--fingerprint", wrong) == 3
    assert re.match(r"error \[wrong-fingerprint\]: .*Nothing was sent\.\n  fix: Compare", capsys.readouterr().err)
    assert desk.requests == []
    grouped = "SHA256:" + " ".join(digest[at : at + 8] for at in range(0, 64, 8))
    assert run("join", paper, "--home", home, "--fingerprint", grouped) == 0


def test_a_network_that_is_not_right_is_told_and_the_same_command_goes_on(
    desk: Desk, paper: Path, tmp_path: Path, capsys: Output
) -> None:
    desk.failure = PortBlocked("127.0.0.1:7444 refused the connection.")
    assert run("join", paper, "--home", tmp_path / "west") == 1
    assert capsys.readouterr().err.startswith("error [port-blocked]: 127.0.0.1:7444 refused the connection.\n  fix: ")
    assert run("join", paper, "--home", tmp_path / "west", "--format", "quiet") == 0
    assert capsys.readouterr().out == "west\n"


# --- doctor -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(paper: Path, data: Path, tmp_path: Path, capsys: Output) -> Path:
    """Joined; its worker is a null worker, and no coordinator listens at its address."""
    assert run("join", paper, "--home", tmp_path / "west", "--data", data) == 0
    config = tmp_path / "west" / "participant.yaml"
    text = config.read_text().replace("worker:", f"worker:\n  command: {json.dumps(list(COMMAND))}")
    # Port 1 of loopback: nobody but root may listen there, and nobody does.
    config.write_text(re.sub(r"127\.0\.0\.1:744[34]", "127.0.0.1:1", text))
    capsys.readouterr()
    return tmp_path / "west"


def test_doctor_writes_a_line_for_each_check_within_eighty_columns(home: Path, capsys: Output) -> None:
    assert run("doctor", "--home", home) == 1
    shown = capsys.readouterr()
    assert "starting the worker" in shown.err
    long = [line for line in shown.out.splitlines() if len(line) > 80 and str(home.parent) not in line]
    assert long == []
    for line in (
        r"ok    configuration ",
        r"ok    permissions ",
        r"ok    data default ",
        r"fail  work port +127\.0\.0\.1:1 refused the connection",
        r" +fix: Check that the coordinator runs",
        r"warn  daemon +not running \(never started\)",
        r"warn  isolation +the worker is not kept apart",
        r"\d+ checks: 2 failed, \d with a warning\.",
    ):
        assert re.search(rf"^{line}", shown.out, re.MULTILINE), shown.out


def test_doctor_answers_programs_in_one_value(home: Path, capsys: Output) -> None:
    assert run("doctor", "--home", home, "--format", "json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "fail"
    assert {"check", "state", "found", "fix"} == set(told["checks"][0])
    assert run("doctor", "--home", home, "--format", "quiet") == 1
    assert capsys.readouterr() == ("fail\n", "")


def test_doctor_of_a_home_without_a_participant_is_a_usage_error(tmp_path: Path, capsys: Output) -> None:
    assert run("doctor", "--home", tmp_path / "none") == 2
    assert "error [not-initialised]" in capsys.readouterr().err
