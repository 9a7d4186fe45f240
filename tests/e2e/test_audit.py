"""An auditor joins without data and recomputes a run by command; its word stands in where others see no deltas."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.identity.invitation import parse_invitation
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from llmasos.simulation.deployment import edit_line
from participant.cli import app
from participant.config import HomeLayout
from participant.joining import Joining, join
from participant.memory.journal import Journal
from tests.support.drafts import make_draft
from tests.support.federations import NAMES, Federation, until

AUDITOR = "court-auditor"


class Commands:
    """Commands of participants, in this process; daemons and coordinator are others."""

    def __init__(self, federation: Federation, output: pytest.CaptureFixture[str]) -> None:
        self._federation, self._output = federation, output

    def __call__(self, name: str, *words: str) -> tuple[int, dict[str, Any], str]:
        """A command's exit code, its JSON, and what it said on the way."""
        self._output.readouterr()
        code = exit_code_of(app, [*words, "--home", str(self._federation.home(name)), "--format", "json"])
        out, err = self._output.readouterr()
        return code, json.loads(out) if out else {}, err


def join_as_auditor(federation: Federation) -> None:
    """What `institution invite --role auditor` and `join` do; no data set."""
    with federation.operator() as session:
        invitation = session.invite(AUDITOR, expires_hours=1, roles=("auditor",))
    join(federation.home(AUDITOR), parse_invitation(invitation), Joining(), SystemClock())


def of_rounds(report: dict[str, Any]) -> str:
    return str(next(check["examined"] for check in report["checks"] if check["name"] == "rounds"))


def own_copy(federation: Federation, name: str) -> int:
    """How many entries an institution holds."""
    with closing(Journal(HomeLayout(federation.home(name)).journal)) as journal:
        return len(journal.ledger())


def test_an_auditors_word_stands_in_where_deltas_are_not_visible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Federation(tmp_path) as federation:
        participant = Commands(federation, capsys)
        join_as_auditor(federation)
        for name in NAMES:
            policy = federation.home(name) / "policy.yaml"
            edit_line(policy, r"allow_delta_audience: \[\]", f"allow_delta_audience: [{AUDITOR}]")
        federation.start_participants()
        federation.start_participant(AUDITOR)
        run = federation.start_run(make_draft(tmp_path / "draft", rounds=2, delta_audience=[AUDITOR]))
        federation.wait_until_ended(run)
        size = len(federation.entries())
        until(lambda: min(own_copy(federation, name) for name in ("clinic", AUDITOR)) == size, "both hold all of it")
        _, status, _ = participant(AUDITOR, "status")
        assert (status["activity"], status["plans_waiting"]) == ("waiting for a plan or a round", [])

        code, report, _ = participant("clinic", "verify", run)
        assert (code, of_rounds(report)) == (4, "0 of 2 recomputed here, equal in every bit")
        assert "not visible to clinic" in json.dumps(report)
        code, refused, said = participant("clinic", "audit", run)
        assert (code, refused) == (3, {})
        assert "clinic takes part as trainer, evaluator, witness; what an auditor recomputed counts" in said

        code, audited, said = participant(AUDITOR, "audit", run)
        assert (code, audited["result"]) == (0, "equal"), said
        assert [each["text"] for each in audited["rounds"]] == ["attested"] * 2
        record = federation.run(run)
        assert record is not None
        assert [list(each.attestations) for each in record.committed()] == [[AUDITOR]] * 2
        assert list(federation.home(AUDITOR).rglob("*.blob")) == [], "an auditor keeps nothing"

        federation.kill_participant(AUDITOR)
        code, audited, _ = participant(AUDITOR, "audit", run)
        assert [each["text"] for each in audited["rounds"]] == ["attested before"] * 2
        _, report, _ = participant(AUDITOR, "verify", run)
        assert of_rounds(report) == "2 of 2 recomputed here, equal in every bit"

        deleting = ["metrics", "delete", run, "--yes", "--home", str(federation.coordinator_home)]
        capsys.readouterr()
        assert exit_code_of(operators_app, deleting) == 0
        assert capsys.readouterr().out == "9 records are deleted.\n", (
            "three institutions, two rounds and the evaluation"
        )

        until(lambda: own_copy(federation, "clinic") == size + 2, "clinic holds the attestations")
        federation.kill_coordinator()
        _, report, said = participant("clinic", "verify", run)
        assert of_rounds(report) == f"0 of 2 recomputed here, equal in every bit; 2 attested by {AUDITOR}; 0 neither"
        assert "going on with what is held here" in said
