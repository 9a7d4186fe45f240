"""Who contributed, over the network: each institution its own row, the operator and a named auditor all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from llmasos.simulation.deployment import edit_line
from tests.e2e.test_audit import AUDITOR, Commands, join_as_auditor, own_copy
from tests.support.drafts import make_draft
from tests.support.federations import NAMES, Federation, until


def rows_of(data: dict[str, Any]) -> dict[tuple[int, str], tuple[float, float, float]]:
    """Share, norm and cosine by round and institution."""
    return {
        (row["round"], row["institution"]): (row["share"], row["l2"], row["cosine"])
        for figures in data["rounds"]
        for row in figures["rows"]
    }


def test_each_sees_what_plan_and_policies_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Federation(tmp_path) as federation:
        participant = Commands(federation, capsys)
        join_as_auditor(federation)
        for name in NAMES:
            policy = federation.home(name) / "policy.yaml"
            edit_line(policy, r"allow_delta_audience: \[\]", f"allow_delta_audience: [{AUDITOR}]")
            edit_line(policy, r"contributions_visibility: own", "contributions_visibility: operator")
        federation.start_participants()
        federation.start_participant(AUDITOR)
        plan = {"rounds": 2, "delta_audience": [AUDITOR], "contributions_visibility": "operator"}
        run = federation.start_run(make_draft(tmp_path / "draft", **plan))
        federation.wait_until_ended(run)
        size = len(federation.entries())
        until(lambda: min(own_copy(federation, name) for name in ("clinic", AUDITOR)) == size, "both hold all of it")

        asking = ["run", "contributions", run, "--format", "json", "--home", str(federation.coordinator_home)]
        capsys.readouterr()
        assert exit_code_of(operators_app, asking) == 0
        every = rows_of(json.loads(capsys.readouterr().out))
        assert sorted(every) == [(number, name) for number in (1, 2) for name in sorted(NAMES)]
        assert all(l2 > 0 and -1 <= cosine <= 1 for _, l2, cosine in every.values())

        code, own, said = participant("clinic", "contributions", run)
        assert code == 0, said
        assert rows_of(own) == {place: row for place, row in every.items() if place[1] == "clinic"}, "the very bits"
        code, seen, said = participant(AUDITOR, "contributions", run)
        assert code == 0, said
        assert rows_of(seen) == every
        assert list(federation.home(AUDITOR).rglob("*.blob")) == [], "nothing that was fetched stays"


def test_shipped_policies_refuse_a_plan_that_shows_the_operator(tmp_path: Path) -> None:
    with Federation(tmp_path) as federation:
        federation.start_participants()
        run = federation.start_run(make_draft(tmp_path / "draft", rounds=1, contributions_visibility="operator"))
        record = federation.wait_for(
            lambda state: (found := state.runs.get(run)) and len(found.answers) == len(NAMES) and found, "all answered"
        )
        reasons = {name: entry.answer.reasons for name, entry in record.answers.items()}
        assert reasons == dict.fromkeys(NAMES, ("contributions-too-visible",))
