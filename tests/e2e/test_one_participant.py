"""One institution, one round, server learning rate 1: the federation's model is the local one, as exactly as float32 can.

Trained by two ranks, which share out rows or the model, it is one rank's within rounding.
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


ROTARY = {
    "type": "llama", "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_size": 16,
    "intermediate_size": 32, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.mark.parametrize(("ranks", "sharding"), [(1, "none"), (2, "none"), (2, "tensor"), (2, "pipeline")])
def test_one_participants_round_gives_its_local_model(tmp_path: Path, ranks: int, sharding: str) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load

    from llmasos.preparation import load_prepared
    from llmasos.training.corpus import Source
    from llmasos.training.institution import Institution, RoundTask, initial_arrays, train
    from llmasos.training.snapshot import SnapshotFolder
    from tests.support.jobs import a_training_plan, make_prepared

    model = {} if sharding == "none" else {"model": ROTARY}
    plan = a_training_plan(rounds=1, quorum=1, metrics_visibility="institution", **model)
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    with Federation(tmp_path / "federation", ("clinic",), min_quorum=1, worker=None) as federation:
        make_institutions(tmp_path / "text", count=1)["clinic"].rename(federation.data("clinic") / "texts")
        edit_line(federation.home("clinic") / "participant.yaml", r"  ranks: auto.*", f"  ranks: {ranks}")
        edit_line(federation.home("clinic") / "participant.yaml", r"  sharding: none.*", f"  sharding: {sharding}")
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
        kept = SnapshotFolder(snapshots).newest_finished_before(prepared.draft.run, 2)
        assert kept is not None
        assert (kept.record.ranks, kept.record.sharding or "none") == (ranks, sharding)
        assert len(list(kept.folder.glob("*.safetensors"))) == ranks
        local = {name: values.numpy() for name, values in kept.load().weights.items()}
        prepared_folder = prepared.folder
        clinic = Institution("clinic", prepared_folder, (Source(federation.data("clinic")),), tmp_path / "alone")
        task = RoundTask(number=1, trained_rounds=0, seed=ended.rounds[0].opened.seed)
        alone = train(clinic, initial_arrays(prepared_folder), task).arrays
    for name, before in base.items():
        difference, expected = local[name] - before, alone[name] - before
        assert np.abs(difference - expected).max() <= (0 if ranks == 1 else 0.01 * np.abs(expected).max())
    assert delta.keys() == base.keys() == new.keys()
    for name, before in base.items():
        after = local[name]
        difference = (after - before).astype(np.float32)
        assert difference.any(), name
        assert delta[name].tobytes() == difference.tobytes()
        assert new[name].tobytes() == (before + difference).astype(np.float32).tobytes()
        ulp = np.spacing(np.maximum(np.abs(before), np.abs(after)))
        assert (np.abs(new[name].astype(np.float64) - after.astype(np.float64)) <= ulp).all()
