"""Approvals over the wire: a coordinator that listens, operators and institutions by the commands that people type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.errors import ApprovalPending, RoleMissing
from common.identity.invitation import open_genesis, parse_invitation
from common.terminal import WIDTH, exit_code_of
from coordinator.app import CoordinatorApp, load_config
from coordinator.commands.connection import operator_session
from coordinator.members.founding import Founding, found
from participant.cli import app as participant_app
from participant.config import HomeLayout
from participant.joining import Joining, join
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.proposals import session_of
from tests.support.participants import RUN
from tests.unit.coordinator.test_cli import Shell, prepared


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running coordinator's home, in whose consortium one has to approve rosters and plans."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    folder = tmp_path / "home"
    founding = Founding("hospitals", "127.0.0.1:0", "127.0.0.1:0", approvals={"roster": 1, "plan": 1})
    found(folder, founding, SystemClock())
    coordinator = CoordinatorApp(folder, load_config(folder))
    coordinator.start()
    yield folder
    coordinator.stop()


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


def invite(shell: Shell, name: str) -> str:
    code, out, err = shell("institution", "invite", name)
    assert code == 0, err
    return out


def catch_up(home: Path) -> int:
    """What a daemon does; how many proposals it hears of."""
    layout = HomeLayout(home)
    journal, session = Journal(layout.journal), session_of(home)
    mirror = Mirror(journal, layout.genesis.read_bytes())
    entries = session.follow(from_index=mirror.state.size, wait_seconds=0.01)
    if entries.envelopes:
        mirror.admit(entries.first_index, entries.envelopes)
    session.close()
    journal.close()
    return entries.open_proposals


def test_an_institution_lets_the_next_one_in_and_the_run_begin(shell: Shell, tmp_path: Path) -> None:
    north, south = tmp_path / "north", tmp_path / "south"
    join(north, parse_invitation(invite(shell, "north")), Joining(), SystemClock())  # nobody is there to approve it
    paper = parse_invitation(invite(shell, "south"))
    with pytest.raises(ApprovalPending, match="The admission of south awaits approval: 0 of 1") as caught:
        join(south, paper, Joining(), SystemClock())
    assert "llmasos-participant proposal approve" in caught.value.fix
    code, out, _ = shell("proposal", "list")
    assert code == 0
    assert "south joins as" in out
    assert max(map(len, out.splitlines())) <= WIDTH
    (listed,) = shell.json("proposal", "list")  # type: ignore[misc]
    assert listed["change"] == "south joins as trainer evaluator witness"
    assert catch_up(north) == 1
    assert (
        exit_code_of(participant_app, ["proposal", "approve", listed["proposal"], "--yes", "--home", str(north)]) == 0
    )
    assert join(south, paper, Joining(), SystemClock()).institution == "south"
    code, out, _ = shell("proposal", "list")
    assert out == "Nothing awaits approval.\n"

    folder = prepared(tmp_path / "plan")
    code, _, err = shell("run", "start", str(folder))
    assert code == 3
    assert f"error [approval-pending]: The plan of run {RUN} awaits approval: 0 of 1" in " ".join(err.split())
    catch_up(south)
    (listed,) = shell.json("proposal", "list")  # type: ignore[misc]
    assert listed["change"] == f"run {RUN} starts"
    assert exit_code_of(participant_app, ["proposal", "show", listed["proposal"], "--home", str(south)]) == 0
    assert (
        exit_code_of(participant_app, ["proposal", "approve", listed["proposal"], "--yes", "--home", str(south)]) == 0
    )
    code, out, _ = shell("run", "start", str(folder))
    assert (code, out.strip()) == (0, RUN)

    code, _, err = shell("institution", "revoke", "south", "--yes")
    assert code == 3
    assert "The revocation of south awaits approval" in err
    (listed,) = shell.json("proposal", "list")  # type: ignore[misc]
    assert listed["change"] == "south: revoked"
    code, out, err = shell("proposal", "withdraw", listed["proposal"][:10])
    assert (code, out) == (0, f"Proposal {listed['proposal'][:8]} is withdrawn.\n"), err
    code, _, err = shell("proposal", "withdraw", listed["proposal"][:10])
    assert code == 2
    assert "0 open proposals begin with" in err


def test_an_operator_cannot_approve(shell: Shell, home: Path, tmp_path: Path) -> None:
    join(tmp_path / "north", parse_invitation(invite(shell, "north")), Joining(), SystemClock())
    with pytest.raises(ApprovalPending):
        join(tmp_path / "south", parse_invitation(invite(shell, "south")), Joining(), SystemClock())
    (listed,) = shell.json("proposal", "list")  # type: ignore[misc]
    with operator_session(home) as session, pytest.raises(RoleMissing, match="only an active institution approves"):
        session.approve(listed["proposal"], bytes(64))


def test_an_institution_cannot_withdraw(shell: Shell, tmp_path: Path) -> None:
    from common.wire.v1 import operations_pb2

    join(tmp_path / "north", parse_invitation(invite(shell, "north")), Joining(), SystemClock())
    session = session_of(tmp_path / "north")
    request = operations_pb2.WithdrawProposalRequest(payload_sha256=bytes(32))
    with pytest.raises(RoleMissing, match="WithdrawProposal needs the role operator"):
        session.call(lambda stubs: stubs.operations.WithdrawProposal(request, timeout=30))
    session.close()


def test_init_fixes_how_many_must_approve(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "other"
    words = (
        "init",
        "--consortium",
        "banks",
        "--approvals",
        "roster=2",
        "--approvals",
        "plan=1",
        "--approvals",
        "release=0",
    )
    code, _, err = shell(*words, home=home)
    assert code == 0, err
    genesis = open_genesis((home / "genesis.json").read_bytes())[1]
    assert genesis.approvals == {"plan": 1, "roster": 2}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("roster", "--approvals is 'roster', expected KIND=K with KIND one of plan, release, roster"),
        ("answer=2", "--approvals is 'answer=2', expected KIND=K"),
        ("roster=-1", "expected KIND=K"),
        ("roster=two", "expected KIND=K"),
        ("roster=1001", "K at most 1,000"),
    ],
)
def test_init_says_what_it_expects(shell: Shell, tmp_path: Path, option: str, said: str) -> None:
    code, _, err = shell("init", "--consortium", "banks", "--approvals", option, home=tmp_path / "other")
    assert code == 2
    assert said in " ".join(err.split())
    assert not (tmp_path / "other").exists()


def test_init_takes_each_kind_once(shell: Shell, tmp_path: Path) -> None:
    words = ("init", "--consortium", "banks", "--approvals", "plan=1", "--approvals", "plan=2")
    code, _, err = shell(*words, home=tmp_path / "other")
    assert (code, "--approvals says plan twice." in err) == (2, True)
    assert json.dumps(sorted(tmp_path.iterdir()), default=str).count("other") == 0
