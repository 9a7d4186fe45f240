"""What an operator sees from the command line: dry runs, runs, logs and status, from the coordinator's host or another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from coordinator.app import CoordinatorApp, load_config
from coordinator.commands import dry_run
from coordinator.commands.forecast import Measuring
from coordinator.members.founding import Founding, found
from tests.support.participants import RUN
from tests.unit.coordinator.test_cli import Shell, prepared


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running coordinator's home, with one run that waits for answers."""
    folder = tmp_path_factory.mktemp("coordinator") / "home"
    found(folder, Founding("hospitals", "127.0.0.1:0", "127.0.0.1:0"), SystemClock())
    coordinator = CoordinatorApp(folder, load_config(folder))
    coordinator.start()
    yield folder
    coordinator.stop()


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared") / "prepared")


def test_a_dry_run_starts_nothing_and_exits_3_when_too_few_would_take_part(shell: Shell, draft: Path) -> None:
    before = shell.json("status")
    command = ("run", "start", str(draft), "--dry-run", "--wait-seconds", "1", "--measure-steps", "0")
    code, out, err = shell(*command)
    assert code == 3
    assert err == "asking the institutions, for 1 s at most\n"
    assert out.splitlines()[0] == f"{RUN}: 2 rounds, quorum 3. Nothing was started."
    assert "not on this machine: --measure-steps is 0" in out
    assert "Quorum cannot be met: 0 of 0 institutions would accept or ask" in out
    assert max(map(len, out.splitlines())) <= 80
    after = shell.json("status")
    assert (before["ledger_size"], before["blob_bytes"]) == (after["ledger_size"], after["blob_bytes"])  # type: ignore[index]
    code, out, _ = shell(*command, "--format", "json")
    assert (code, json.loads(out)["enough"]) == (3, False)
    assert shell(*command, "--format", "quiet") == (3, "too-few\n", "")


def test_a_measurement_that_fails_says_why(shell: Shell, draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "find_spec", lambda package: None)
    code, out, _ = shell("run", "start", str(draft), "--dry-run", "--wait-seconds", "1")
    assert code == 3
    assert "torch is not installed here: pip install 'llmasos[train]'" in out.replace("\n            ", " ")


def test_the_measuring_process_reports_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "find_spec", lambda package: object())
    monkeypatch.setattr(dry_run.sys, "executable", "/bin/false")
    assert dry_run.measure(tmp_path, 1, dry_run.Terminal()) == Measuring(reason="`llmasos plan measure` failed: exit 1")


def test_a_run_is_shown_waited_for_and_logged(shell: Shell, draft: Path) -> None:
    assert shell("run", "start", str(draft))[0] == 0
    code, out, _ = shell("run", "show", "tiny")
    assert code == 0
    assert out.splitlines()[:3] == [f"run     {RUN}", "plan    tiny, 2 training rounds", "quorum  3 contributions"]
    assert shell.json("run", "show", "tiny")["run"] == RUN  # type: ignore[call-overload,index]
    code, out, err = shell("run", "wait", "tiny", "--for", "round=1", "--timeout", "1s")
    assert (code, out) == (1, "")
    assert f"error [wait-timed-out]: Run {RUN}: waited 1.0 s until round 1 was closed, in vain" in err
    code, out, _ = shell("run", "logs", "tiny")
    assert code == 0
    assert out.rstrip().endswith("-         coordinator  plan-sent: tiny: 2 rounds, quorum 3 [ledger 2]")
    code, out, _ = shell("run", "logs", "tiny", "operator", "--format", "json")
    assert (code, out) == (0, ""), "nothing of the operator's stands in the run's log"
    code, _, err = shell("run", "logs", "tiny", "nobody")
    assert (code, "No member is named 'nobody'; members here: operator." in err) == (2, True)


def test_an_end_is_waited_for_and_the_log_is_followed_to_it(shell: Shell, draft: Path) -> None:
    shell("run", "start", str(draft))
    assert shell("run", "abort", "tiny", "--reason", "maintenance")[0] == 0
    assert shell("run", "wait", "tiny", "--for", "ended")[:2] == (0, f"{RUN}: it ended. Now round 0, ended.\n")
    code, _, err = shell("run", "wait", "tiny", "--for", "round=1")
    assert code == 1
    assert f"error [run-failed]: Run {RUN} ended before round 1 was closed: aborted, after round 0." in err
    code, out, _ = shell("run", "logs", "tiny", "-f", "--format", "json")
    assert code == 0
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["plan-sent", "run-ended"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "wait", "tiny", "--for", "later"), "--for is 'later', expected accepted, ended or round=N"),
        (("run", "wait", "tiny", "--for", "ended", "--timeout", "1 hour"), "--timeout is '1 hour', expected a number"),
        (("run", "wait", "tiny"), "Missing option '--for'"),
    ],
)
def test_what_is_mistyped_is_named(shell: Shell, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_the_status_is_read_in_three_formats(shell: Shell, home: Path) -> None:
    code, out, _ = shell("status")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert out.startswith("consortium    hospitals\n")
    data = shell.json("status")
    assert data["work_address"] == json.loads((home / "addresses.json").read_text())["work"]  # type: ignore[call-overload,index]
    assert shell("status", "--format", "quiet")[1] == "running\n"


# --- from another host ---------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path) -> Path:
    """A home that holds the operator's folder alone, with the coordinator's address."""
    folder = tmp_path / "operator-home"
    shutil.copytree(home / "operator", folder / "operator")
    address = json.loads((home / "addresses.json").read_text())["work"]
    context = {"consortium": "hospitals", "work_address": address}
    (folder / "operator" / "context.json").write_text(json.dumps(context))
    return folder


@pytest.mark.parametrize("arguments", [("status",), ("run", "list"), ("institution", "list")], ids=" ".join)
def test_an_operators_home_is_enough(shell: Shell, elsewhere: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = shell(*arguments, home=elsewhere)
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("name", ["tls.pem", "tls.key.pem", "genesis.json"])
def test_what_an_operators_home_lacks_is_named(shell: Shell, elsewhere: Path, name: str) -> None:
    (elsewhere / "operator" / name).unlink()
    code, _, err = shell("status", home=elsewhere)
    assert code == 2
    assert f"holds no operator's certificate: {name} is missing in {elsewhere / 'operator'}." in err
    assert "Name with --home the folder that holds operator/" in err


def test_a_home_without_an_address_says_how_to_write_one(shell: Shell, elsewhere: Path) -> None:
    context = elsewhere / "operator" / "context.json"
    context.unlink()
    code, _, err = shell("status", home=elsewhere)
    assert code == 2
    assert f"{elsewhere} names no coordinator: {context} is missing." in err
    assert 'Write {"work_address": "HOST:PORT"} into it' in err
    for broken in ("", "[]", '{"work": "x"}'):
        context.write_text(broken)
        code, _, err = shell("status", home=elsewhere)
        assert code == 2
        assert f"{context}: expected a JSON object with 'work_address'" in err
