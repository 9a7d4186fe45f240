"""Two institutions train each adapter for two rounds: its tensors alone come back, all others stay, and the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import numpy as np  # noqa: E402

from common.tensors import delta_size  # noqa: E402
from llmasos.flower.rounds import ReducedRounds  # noqa: E402
from llmasos.models.adapters import is_adapter_tensor  # noqa: E402
from llmasos.models.tensors import by_name  # noqa: E402
from llmasos.preparation import load_prepared  # noqa: E402
from llmasos.training.corpus import Source  # noqa: E402
from llmasos.training.institution import Institution, RoundTask, bench, initial_arrays, measure, train  # noqa: E402
from tests.support.jobs import a_training_plan, make_prepared  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

ROUNDS = 2
LLAMA = {
    "type": "llama",
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 2},
    "dora": {"type": "lora", "r": 2, "use_dora": True},
    "ia3": {"type": "ia3"},
    "prompt-tuning": {"type": "prompt-tuning", "num_virtual_tokens": 4},
    "prefix-tuning": {"type": "prefix-tuning", "num_virtual_tokens": 4},
    "projected prefix": {
        "type": "prefix-tuning",
        "num_virtual_tokens": 4,
        "prefix_projection": True,
        "encoder_hidden_size": 8,
    },
    "p-tuning": {"type": "p-tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 8},
    "p-tuning, LSTM": {
        "type": "p-tuning",
        "num_virtual_tokens": 4,
        "encoder_reparameterization_type": "LSTM",
        "encoder_hidden_size": 4,
    },
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_only_the_adapter_moves_and_the_loss_falls(tmp_path: Path, name: str) -> None:
    optimizer = {"type": "adamw", "learning_rate": "0.03", "weight_decay": "0"}
    local = {"steps": 6, "batch_size": 4, "sequence_length": 32, "optimizer": optimizer}
    plan = a_training_plan(model=LLAMA, adapter=ADAPTERS[name], local=local, rounds=ROUNDS, quorum=2)
    prepared = make_prepared(tmp_path, plan)
    folders = make_institutions(tmp_path / "data", count=2)
    institutions = [
        Institution(one, prepared, (Source(folder),), tmp_path / "homes" / one, allow_cuda=False)
        for one, folder in folders.items()
    ]
    (tmp_path / "rounds").mkdir()
    reducer, model = ReducedRounds(plan, tmp_path / "rounds"), initial_arrays(prepared)
    manifest = load_prepared(prepared).draft.manifest
    assert list(model) == [entry.name for entry in manifest if entry.group == "trainable"]
    assert all(is_adapter_tensor(tensor) for tensor in model)
    assert delta_size(manifest) < 0.4 * 4 * sum(entry.elements for entry in manifest)
    module = bench(prepared, 1, False).model
    frozen = [entry for entry in manifest if entry.group == "frozen"]
    kept = {key: value.detach().clone() for key, value in by_name(module, frozen).items()}
    initial, before = model, [measure(one, model).loss_sum_fixed for one in institutions]
    for number in range(1, ROUNDS + 1):
        reducer.open(model)
        for one in institutions:
            trained = train(one, model, RoundTask(number, number - 1, seed=number))
            assert trained.arrays.keys() == model.keys()
            reducer.take(one.name, trained.sums.num_tokens, trained.arrays)
        new = reducer.close()
        assert new is not None
        model = new
    after = [measure(one, model).loss_sum_fixed for one in institutions]
    assert all(last < first for first, last in zip(before, after, strict=True))
    assert not any(np.array_equal(model[key], value) for key, value in initial.items())
    found = by_name(module, frozen)
    assert all(torch.equal(found[entry.name], kept[entry.name]) for entry in frozen)
