"""Muon, and deltas weighed by bytes: what workers count is in the ledger, and what both verifiers compute with."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.ledger.staleness import weights
from common.statements.kinds import ClearWeight
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from tests.independent.verify_bundle import Verdict
from tests.support.drafts import Draft
from tests.support.federations import Federation
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

NAMES = ("bank", "clinic")
LOCAL = {
    "optimizer": {"type": "muon", "learning_rate": "0.01"},
    "schedule": {"type": "warmup-stable-decay", "warmup_steps": 1},
    "gradient_checkpointing": True,
    "steps": 3,
}


def test_deltas_weigh_the_bytes_that_workers_counted_and_every_round_is_verified(tmp_path: Path) -> None:
    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    weighting = {"type": "bytes", "max_bytes_a_token": 1}
    plan = a_training_plan(local=LOCAL, rounds=2, quorum=2, weighting=weighting, evaluation={"max_tokens": 64})
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    with Federation(tmp_path / "federation", NAMES, min_quorum=2, worker=None) as federation:
        texts = make_institutions(tmp_path / "text", count=2)
        for name in NAMES:
            texts[name].rename(federation.data(name) / "texts")
        federation.start_participants()
        ended = federation.wait_until_ended(federation.start_run(Draft(prepared.draft, prepared.folder)))
        assert [record.closed.outcome for record in ended.rounds if record.closed] == ["committed"] * 3
        for record in ended.rounds[:2]:
            said = {name: entry.contribution.weight for name, entry in record.contributions.items()}
            assert all(isinstance(weight, ClearWeight) for weight in said.values())
            counted = {name: weight.num_bytes for name, weight in said.items() if isinstance(weight, ClearWeight)}
            assert weights(ended, record) == counted
            assert all(bytes_ is not None and 0 < bytes_ <= 3 * 4 * 32 for bytes_ in counted.values())
        home = str(federation.coordinator_home)
        assert exit_code_of(operators_app, ["verify", ended.run, "--home", home]) == 0
        bundle = tmp_path / "run.evidence"
        assert exit_code_of(operators_app, ["evidence", "export", str(bundle), "--with-deltas", "--home", home]) == 0
        verdict = Verdict(bundle.read_bytes())
        assert verdict.failed == []
        assert {section for section, _ in verdict.gaps}.isdisjoint({"rounds", "contents", "lineage"})
