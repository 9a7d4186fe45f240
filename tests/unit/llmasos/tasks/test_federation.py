"""Shipped plans of tasks in a federation of three: each institution trains as its worker does, the reducer makes the model.

Models are the plans' own at half the width; what a coordinator and transport add is the same for every task (tests/e2e).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.plan.load import load_plan
from common.plan.model import Plan
from common.resources import config_path
from llmasos.flower.rounds import ReducedRounds
from llmasos.training.corpus import Source
from llmasos.training.institution import Institution, RoundTask, initial_arrays, measure, train
from tests.support.jobs import make_prepared
from tests.support.records import a_conversation, a_translation, make_records
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

ROUNDS = 3


def smaller(name: str, **model: Any) -> Plan:
    """A shipped plan, three rounds of six steps of four short rows."""
    plan = load_plan(config_path(f"plans/{name}.yaml"))
    local = plan.local.model_copy(update={"steps": 6, "batch_size": 4, "sequence_length": 64})
    changed = plan.model_copy(update={"model": plan.model.model_copy(update=model), "local": local, "rounds": ROUNDS})
    return Plan.model_validate(changed.model_dump())


CASES: dict[str, tuple[Callable[[], Plan], Callable[[Path], dict[str, Path]]]] = {
    "bert": (lambda: smaller("bert", hidden_size=32, intermediate_size=64), make_institutions),
    "translation": (
        lambda: smaller("translation", d_model=32, dim_feedforward=64),
        lambda root: make_records(root, a_translation, form="csv"),
    ),
    "dialogue": (lambda: smaller("dialogue", n_embd=32), lambda root: make_records(root, a_conversation)),
}


@pytest.mark.parametrize("name", CASES)
def test_three_institutions_train_one_model_that_finds_more_of_what_each_held_out(name: str, tmp_path: Path) -> None:
    make_plan, make_data = CASES[name]
    plan, folders = make_plan(), make_data(tmp_path / "data")
    prepared = make_prepared(tmp_path, plan)
    institutions = [
        Institution(one, prepared, (Source(folder),), tmp_path / "homes" / one, allow_cuda=False)
        for one, folder in folders.items()
    ]
    (tmp_path / "rounds").mkdir()
    reducer, model = ReducedRounds(plan, tmp_path / "rounds"), initial_arrays(prepared)
    before = [measure(one, model) for one in institutions]
    for number in range(1, ROUNDS + 1):
        reducer.open(model)
        for one in institutions:
            trained = train(one, model, RoundTask(number, number - 1, seed=number))
            assert 0 < trained.sums.num_tokens <= plan.local.tokens_per_round
            reducer.take(one.name, trained.sums.num_tokens, trained.arrays)
        new = reducer.close()
        assert new is not None
        model = new
    after = [measure(one, model) for one in institutions]
    assert [one.num_tokens for one in before] == [one.num_tokens for one in after]
    for first, last in zip(before, after, strict=True):
        assert last.loss_sum_fixed < 0.99 * first.loss_sum_fixed
    if plan.adapter.type == "lora":
        assert all("lora_" in tensor for tensor in model)
