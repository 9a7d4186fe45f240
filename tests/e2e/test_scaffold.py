"""SCAFFOLD between processes: control variates go round, one institution is killed in mid-round, and everything is verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.tensors import delta_size
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.config import HomeLayout
from participant.memory.journal import Journal
from tests.support.drafts import Draft
from tests.support.federations import Federation, until
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

NAMES = ("bank", "clinic", "laboratory")


def test_a_run_with_scaffold_survives_a_kill_and_is_verified(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file

    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    local = {"steps": 150, "optimizer": {"type": "sgd", "learning_rate": "0.2"}, "correction": {"type": "scaffold"}}
    plan = a_training_plan(rounds=3, quorum=3, local=local, metrics_visibility="institution")
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    size = delta_size(prepared.draft.manifest)
    with Federation(tmp_path / "federation", NAMES, worker=None) as federation:
        for name, folder in zip(NAMES, make_institutions(tmp_path / "text", count=3).values(), strict=True):
            folder.rename(federation.data(name) / "texts")
        federation.start_participants()
        run = federation.start_run(Draft(prepared.draft, prepared.folder))
        federation.wait_until_open(run, 2)
        controls = federation.home("clinic") / "jobs" / run / "control"
        until((controls / "round-00000001.safetensors").exists, "clinic has trained a round")
        federation.kill_participant("clinic")
        federation.start_participant("clinic")
        seen = {}

        def third_is_kept() -> bool:
            path = federation.home("bank") / "jobs" / run / "control" / "round-00000003.safetensors"
            if path.exists():
                seen.update(load_file(path))
            return bool(seen)

        until(third_is_kept, "bank has trained the third round")
        ended = federation.wait_until_ended(run)
        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        assert exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home)]) == 0
        committed = ended.committed()
        assert len(committed) == 3
        states = [each.closed.outputs.server_state for each in committed if each.closed is not None]
        assert len(set(states)) == 3
        for record in committed:
            for entry in record.contributions.values():
                assert entry.contribution.deviations == ()
                assert set(entry.contribution.blobs) == {"delta", "control"}
        until(lambda: not (controls.parent / "plan.json").exists(), "the run's files are gone")
        assert not controls.exists()
        journal = Journal(HomeLayout(federation.home("bank")).journal)
        sent = [(entry.kind, entry.bytes) for entry in journal.egress() if entry.kind in ("delta", "control")]
        journal.close()
    assert sorted(sent) == [("control", size)] * 3 + [("delta", size)] * 3
    assert any(value.any() for value in seen.values())
