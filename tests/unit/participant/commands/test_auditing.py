"""audit and verify as commands: who may, which rounds, and what is said where nothing can be fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.homes import HomeLock
from tests.support.auditors import Auditor
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]
GOING_ON = "going on with what is held here: "


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> ParticipantHome:
    """North, a trainer, after a run to its end."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    coordinator.start_run(rounds=2)
    coordinator.play()
    made = ParticipantHome(tmp_path / "home", coordinator)
    made.follow()
    return made


def test_a_trainer_is_told_how_auditors_join(home: ParticipantHome, capsys: Output) -> None:
    with HomeLock(home.layout.home):  # its daemon runs, and follows the ledger
        assert home.run("audit", RUN) == 3
    err = capsys.readouterr().err
    assert "error [role-missing]: north takes part as trainer, evaluator" in err
    assert "institution invite NAME --role auditor" in err
    assert "llmasos-participant verify" in err


def test_rounds_are_named_in_their_order(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("audit", RUN, "--from", "3", "--to", "2") == 2
    assert "--to 2 comes before --from 3." in capsys.readouterr().err


def test_no_such_run_names_those_that_are_there(
    tmp_path: Path, home: ParticipantHome, coordinator: Coordinator, capsys: Output
) -> None:
    Auditor(tmp_path / "auditor", coordinator)
    audits = ParticipantHome(tmp_path / "office", coordinator, "court-auditor")
    audits.follow()
    with HomeLock(audits.layout.home):
        assert audits.run("audit", "other") == 2
    assert f"0 runs of this ledger begin with 'other'; runs here: {RUN}." in capsys.readouterr().err


def test_verify_goes_on_without_a_coordinator_and_says_so_once(home: ParticipantHome, capsys: Output) -> None:
    home.run("verify", RUN)
    out, err = capsys.readouterr()
    assert err.count(GOING_ON) == 1
    assert "not held here, and the coordinator is not reached" in " ".join(out.split())
    assert list(home.layout.home.rglob("*.blob")) == []


def test_verify_fetches_nothing_where_that_was_said(home: ParticipantHome, capsys: Output) -> None:
    home.run("verify", RUN, "--no-fetch")
    out, err = capsys.readouterr()
    assert GOING_ON not in err
    assert "the delta of south not held here." in " ".join(out.split())
    assert not (home.layout.home / "fetched").exists()
