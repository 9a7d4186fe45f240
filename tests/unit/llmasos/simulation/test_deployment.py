"""The commands of operator and institutions, run in order; with stand-ins for the daemons."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config import load_yaml
from common.errors import OperationError, UsageError
from llmasos.simulation.deployment import Commands, Deployment, InstitutionFolder, edit_line, parse_institution
from llmasos.simulation.layout import Layout
from llmasos.simulation.monitor import Followed, follow
from llmasos.simulation.processes import Processes
from llmasos.simulation.progress import LineProgress
from participant.policy import Policy
from tests.support.fake_daemons import FAKES, NAMES, a_view
from tests.support.plans import a_plan


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Processes() as processes, Deployment(Layout(tmp_path), processes, commands=FAKES) as running:
        yield running


def join_all(deployment: Deployment, tmp_path: Path) -> None:
    for name in NAMES:
        folder = tmp_path / "texts" / name
        folder.mkdir(parents=True)
        deployment.join(InstitutionFolder(name, folder), threads=1)


def follow_script(deployment: Deployment, script: dict[str, Any], out: io.StringIO) -> Followed:
    (deployment.layout.coordinator / "script.json").write_text(json.dumps(script))
    return follow(deployment, "tiny-abc123", LineProgress(out, lambda: 1.0), quorum=3)


def test_a_run_goes_from_init_to_its_end(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_coordinator()
    join_all(deployment, tmp_path)
    for name in NAMES:
        deployment.start_participant(name)
    assert deployment.start_run(tmp_path / "prepared") == "tiny-abc123"
    out = io.StringIO()
    followed = follow_script(deployment, {"views": [a_view(ended=False), a_view()], "exit": 0}, out)
    assert followed.succeeded
    assert followed.view.trained_rounds == 2
    assert "round 3 committed: 3 of 3 contributed" in out.getvalue()
    deployment.stop()
    assert deployment.coordinator is None
    assert deployment.participants == {}


def test_ports_found_are_written_into_the_configuration(deployment: Deployment) -> None:
    deployment.start_coordinator()
    text = (deployment.layout.coordinator / "coordinator.yaml").read_text()
    assert 'work: "127.0.0.1:41234"' in text
    assert 'enrolment: "127.0.0.1:41235"' in text


def test_an_invitation_is_readable_by_its_owner_only(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_coordinator()
    join_all(deployment, tmp_path)
    invitation = deployment.layout.invitation("north")
    assert invitation.read_text().strip() == "invitation of north"
    assert invitation.stat().st_mode & 0o777 == 0o600


def test_a_coordinator_that_fails_to_start_is_reported_with_its_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.coordinator.mkdir()
    (layout.coordinator / "broken").touch()
    with Processes() as processes, pytest.raises(OperationError, match="broken as asked"):
        Deployment(layout, processes, commands=FAKES).start_coordinator()


def test_a_run_that_failed_is_no_success_but_keeps_its_view(deployment: Deployment) -> None:
    deployment.start_coordinator()
    followed = follow_script(deployment, {"views": [a_view()], "exit": 1}, io.StringIO())
    assert not followed.succeeded
    assert followed.view.end_reason == "rounds-done"


def test_a_watch_that_breaks_off_is_an_error(deployment: Deployment) -> None:
    deployment.start_coordinator()
    with pytest.raises(OperationError, match="run watch ended with exit code 1"):
        follow_script(deployment, {"views": [a_view(ended=False)], "exit": 1}, io.StringIO())


def test_too_many_broken_participants_end_the_simulation(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_coordinator()
    join_all(deployment, tmp_path)
    (deployment.layout.participant("south") / "broken").touch()
    deployment.start_participant("south")
    deployment.participants["south"].process.wait()
    with pytest.raises(OperationError, match=r"south ended with exit code 1\. The end of its log:"):
        follow_script(deployment, {"views": [a_view(ended=False)], "exit": 0}, io.StringIO())


def test_a_participant_killed_from_outside_is_reported_once(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_coordinator()
    join_all(deployment, tmp_path)
    deployment.start_participant("west")
    deployment.participants["west"].kill()
    deployment.participants["west"].process.wait()
    out = io.StringIO()
    assert follow_script(deployment, {"views": [a_view(ended=False), a_view()], "exit": 0}, out).succeeded
    assert out.getvalue().count("participant west was ended by signal 9") == 1


def test_a_policy_accepts_the_runs_of_the_simulated_plan(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_coordinator()
    join_all(deployment, tmp_path)
    plans = {
        "north": a_plan(
            quorum=1,
            metrics_visibility="institution",
            delta_audience=["inspector", "board"],
            contributions_visibility="operator",
        ),
        "south": a_plan(),
    }
    policies = {}
    for name, plan in plans.items():
        deployment.accept_runs(name, plan)
        policies[name] = load_yaml(deployment.layout.participant(name) / "policy.yaml", Policy)
    north, south = policies["north"], policies["south"]
    assert (north.answer, north.min_quorum, north.metrics_visibility) == ("accept", 1, "institution")
    assert (north.contributions_visibility, south.contributions_visibility) == ("operator", "own")
    assert north.allow_delta_audience == ("inspector", "board")
    assert set(north.budgets.model_dump().values()) == {None}
    assert (south.answer, south.min_quorum, south.metrics_visibility) == ("accept", 3, "pooled")
    assert south.allow_delta_audience == ()


def test_a_setting_that_is_not_there_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("answer: accept\n")
    with pytest.raises(OperationError, match="holds no line like 'min_quorum: 3'"):
        edit_line(file, "min_quorum: 3", "min_quorum: 1")


def test_commands_never_import_from_the_working_folder() -> None:
    assert "-P" in Commands().coordinator
    assert "-P" in Commands().participant


def test_an_institution_is_a_name_a_folder_and_perhaps_a_column(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert parse_institution(f"north={tmp_path}") == InstitutionFolder("north", tmp_path)
    assert parse_institution(f"north={tmp_path}:note") == InstitutionFolder("north", tmp_path, "note")
    assert parse_institution(f"north={odd}") == InstitutionFolder("north", odd)
    with pytest.raises(UsageError, match="expected NAME=DIR or NAME=DIR:COLUMN, got 'north'"):
        parse_institution("north")
    with pytest.raises(UsageError, match="expected a folder of text, but /no/such/folder is none"):
        parse_institution("north=/no/such/folder")
