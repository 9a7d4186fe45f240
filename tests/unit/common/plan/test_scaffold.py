"""What a plan with SCAFFOLD must say beside it, and what it must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import InvalidConfiguration
from common.plan.load import load_plan
from common.plan.local_optimizers import SGD, AdamW
from tests.support.plans import a_plan

LOCAL: dict[str, Any] = {
    "steps": 2,
    "batch_size": 2,
    "sequence_length": 16,
    "optimizer": {"type": "sgd"},
    "correction": {"type": "scaffold"},
}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "adamw": ({"optimizer": {"type": "adamw"}}, {}, "needs local.optimizer sgd, got adamw"),
    "adamw by default": ({"optimizer": {}}, {}, "needs local.optimizer sgd, got adamw"),
    "momentum": (
        {"optimizer": {"type": "sgd", "momentum": "0.9"}},
        {},
        r"needs local.optimizer sgd without momentum, got 0\.9",
    ),
    "FedProx": ({"fedprox_mu": "0.5"}, {}, r"needs local.fedprox_mu 0, got 0\.5: use one of the two"),
    "a schedule that ends at 0": (
        {"schedule": {"type": "cosine", "final_fraction": "0"}},
        {},
        "needs local.schedule.final_fraction above 0, got 0: the change of a round is divided by its learning rates",
    ),
    "another rule": ({}, {"rule": {"type": "median"}}, "needs rule weighted-mean, got median"),
    "a codec": ({}, {"codec": {"type": "int8"}}, "needs codec float32, got int8"),
    "a buffer": ({}, {"mode": {"type": "buffered", "buffer": 3}}, "needs mode synchronous, got buffered"),
    "a server optimizer": ({}, {"server_optimizer": {"type": "momentum"}}, "needs server_optimizer sgd, got momentum"),
    "a downlink that drops": ({}, {"downlink": {"type": "int4"}}, "needs downlink float32 or none, got int4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_it_is_refused_in_a_sentence(name: str) -> None:
    local, changes, words = REFUSED[name]
    with pytest.raises(ValidationError, match=f"local.correction scaffold {words}"):
        a_plan(local=LOCAL | local, **changes)


def test_it_leaves_a_server_state_of_the_control_variate_alone() -> None:
    for changes in ({}, {"downlink": {"type": "float32"}}, {"local": LOCAL | {"schedule": {"type": "constant"}}}):
        plan = a_plan(**({"local": LOCAL} | changes))
        assert (plan.corrects, plan.slots, plan.step_slots, plan.leaves_server_state) == (True, ("control",), (), True)
    assert (a_plan().corrects, a_plan().max_control_l2) == (False, None)


def test_a_local_optimizer_without_a_type_is_adamw_and_stays_as_it_was_written() -> None:
    plan = a_plan(local={"sequence_length": 16, "optimizer": {"learning_rate": "0.01"}})
    assert isinstance(plan.local.optimizer, AdamW)
    assert plan.model_dump(mode="json", exclude_unset=True)["local"]["optimizer"] == {"learning_rate": "0.01"}
    again = a_plan(local=LOCAL | {"optimizer": plan.local.optimizer, "correction": {"type": "none"}})
    assert again.local.optimizer == plan.local.optimizer
    assert isinstance(a_plan(local=LOCAL).local.optimizer, SGD)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            "{type: lion}",
            r"local.optimizer.type: expected one of 'adamw', 'adam', 'sgd', 'adafactor', 'muon', got 'lion'\.",
        ),
        ("{type: sgd, beta1: 0.9}", r"local.optimizer.beta1: unknown field; known here: learning_rate, momentum, type"),
        ("{learnin_rate: 1}", r"local.optimizer.learnin_rate: unknown field; did you mean 'learning_rate'\?"),
        ("sgd", r"local.optimizer"),
    ],
)
def test_a_wrong_local_optimizer_is_told_in_a_sentence(tmp_path: Path, written: str, words: str) -> None:
    (tmp_path / "plan.yaml").write_text(f"apiVersion: llmasos/v1\nname: tiny\nlocal: {{optimizer: {written}}}\n")
    with pytest.raises(InvalidConfiguration, match=f"plan.yaml:3: {words}"):
        load_plan(tmp_path / "plan.yaml")
