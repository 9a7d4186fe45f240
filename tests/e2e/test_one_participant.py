"""One institution, one round, server learning rate 1: the federation's model is the local one, as exactly as float32 can.

Trained by two ranks, it is one rank's within rounding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmasos.simulation.deployment import edit_line
from tests.support.drafts import Draft
from tests.support.federations import Federation
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_participants_round_gives_its_local_model(tmp_path: Path, ranks: int) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load, load_file

    from llmasos.preparation import load_prepared
    from llmasos.training.corpus import Source
    from llmasos.training.institution import Institution, RoundTask, initial_arrays, train
    from tests.support.jobs import a_training_plan, make_prepared

    plan = a_training_plan(rounds=1, quorum=1, metrics_visibility="institution")
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    with Federation(tmp_path / "federation", ("clinic",), min_quorum=1, worker=None) as federation:
        make_institutions(tmp_path / "text", count=1)["clinic"].rename(federation.data("clinic") / "texts")
        edit_line(federation.home("clinic") / "participant.yaml", r"  ranks: auto.*", f"  ranks: {ranks}")
        federation.start_participants()
        ended = federation.wait_until_ended(federation.start_run(Draft(prepared.draft, prepared.folder)))
        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        sent = ended.rounds[0].contributions["clinic"].contribution.blobs["delta"]
        base, delta, new = (
            load(federation.blob(ref))
            for ref in (prepared.draft.initial.model, sent, ended.rounds[1].opened.inputs.model)
        )
        assert ended.model == ended.rounds[1].opened.inputs.model
        # The worker keeps its weights after the round's last step, for its optimizer.
        snapshots = federation.home("clinic") / "jobs" / prepared.draft.run / "snapshots"
        parts = sorted((snapshots / f"round-00000001-step-{plan.local.steps:08d}").glob("*.safetensors"))
        assert len(parts) == ranks
        local = {name: values for part in parts for name, values in load_file(part).items()}
        prepared_folder = prepared.folder
        clinic = Institution("clinic", prepared_folder, (Source(federation.data("clinic")),), tmp_path / "alone")
        task = RoundTask(number=1, trained_rounds=0, seed=ended.rounds[0].opened.seed)
        alone = train(clinic, initial_arrays(prepared_folder), task).arrays
    for name, before in base.items():
        difference, expected = local[f"weight.{name}"] - before, alone[name] - before
        assert np.abs(difference - expected).max() <= (0 if ranks == 1 else 0.01 * np.abs(expected).max())
    assert delta.keys() == base.keys() == new.keys()
    for name, before in base.items():
        after = local[f"weight.{name}"]
        difference = (after - before).astype(np.float32)
        assert difference.any(), name
        assert delta[name].tobytes() == difference.tobytes()
        assert new[name].tobytes() == (before + difference).astype(np.float32).tobytes()
        ulp = np.spacing(np.maximum(np.abs(before), np.abs(after)))
        assert (np.abs(new[name].astype(np.float64) - after.astype(np.float64)) <= ulp).all()
