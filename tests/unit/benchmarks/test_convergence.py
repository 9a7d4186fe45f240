"""Federated against central training: equal where theory says so, and what the benchmark tells of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.plan.model import Plan  # noqa: E402
from llmasos.training.device import set_up  # noqa: E402
from tests.support.benchmark_modules import convergence, in_process  # noqa: E402
from tests.support.jobs import a_training_plan  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

Train = Callable[[Any, Plan, Any], None]
STEPS = 4


def ends(train: Train, consortium: Any, plan: Plan) -> Any:
    """Held-out losses of the last model."""
    found: dict[int, Any] = {}
    train(consortium, plan, lambda number, measure: found.update({number: measure()}))
    assert max(found) == plan.rounds
    return found[plan.rounds]


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Path]:
    return make_institutions(tmp_path / "data", count=4)


def a_plan(optimizer: dict[str, Any], **changes: Any) -> Plan:
    local = {"steps": 1, "optimizer": optimizer, "max_gradient_norm": "1000000"}
    return a_training_plan(local=local, rounds=STEPS, **changes)


def test_one_local_sgd_step_a_round_is_central_training_within_rounding(
    texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = a_plan({"type": "sgd", "learning_rate": "0.5"})
    weights = {}
    monkeypatch.setattr(
        in_process.Consortium,
        "losses",
        lambda self, plan, model: {name: value.detach().clone() for name, value in model.named_parameters()},
    )
    with in_process.Consortium(plan, texts, set_up(1, allow_cuda=False), tmp_path / "tokens") as consortium:
        for train in (in_process.federated, in_process.central):
            weights[train] = ends(train, consortium, plan)
        initial = consortium.training(plan).weights()
    for name, value in weights[in_process.federated].items():
        torch.testing.assert_close(value, weights[in_process.central][name], rtol=1e-5, atol=2e-6, msg=name)
    moved = max(float((value - initial[name]).abs().max()) for name, value in weights[in_process.central].items())
    assert moved > 0.05  # far beyond what may differ


def test_one_local_adamw_step_a_round_is_not(texts: dict[str, Path], tmp_path: Path) -> None:
    """Its steps do not add up; else the test above could not fail."""
    plan = a_plan({"type": "adamw", "learning_rate": "0.01"})
    with in_process.Consortium(plan, texts, set_up(1, allow_cuda=False), tmp_path / "tokens") as consortium:
        losses = [ends(train, consortium, plan) for train in (in_process.federated, in_process.central)]
    assert losses[0] != losses[1]


def test_moments_kept_or_reset_and_an_institution_alone_are_other_trainings(
    texts: dict[str, Path], tmp_path: Path
) -> None:
    plan = a_plan({"type": "adamw", "learning_rate": "0.01"})
    reset = plan.model_copy(update={"local": plan.local.model_copy(update={"optimizer_state": "reset"})})
    with in_process.Consortium(plan, texts, set_up(1, allow_cuda=False), tmp_path / "tokens") as consortium:
        kept = ends(in_process.federated, consortium, plan)
        again = ends(in_process.federated, consortium, plan)
        anew = ends(in_process.federated, consortium, reset)
        clinic = ends(lambda c, p, watch: in_process.alone(c, p, "clinic", watch), consortium, plan)
    assert kept == again
    assert kept.keys() == clinic.keys() == texts.keys()
    assert len({json.dumps(each) for each in (kept, anew, clinic)}) == 3


def trained(name: str, seed: int, perplexity: float, split: str = "iid") -> Any:
    return convergence.Trained(name, split, seed, perplexity, {"v1": perplexity}, [(1, 9.0), (2, perplexity)], 1.0)


def test_an_arm_is_compared_with_the_best_central_training_of_the_same_seed() -> None:
    found = [
        *(trained("central/0.002", seed, value) for seed, value in ((1, 5.0), (2, 6.0))),
        *(trained("central/0.004", seed, value) for seed, value in ((1, 4.0), (2, 5.0))),
        *(trained("sgd/keep/0.004", seed, value) for seed, value in ((1, 4.4), (2, 5.0))),
    ]
    assert convergence.best_central(found) == "central/0.004"
    (row,) = (row for row in convergence.summary(found) if row["name"].startswith("sgd"))
    assert row["apart"] == pytest.approx(5.0)
    assert (row["apart_least"], row["apart_most"]) == (pytest.approx(0.0), pytest.approx(10.0))
    assert row["perplexity"] == pytest.approx(4.7)


def test_an_arm_is_read_and_what_is_none_is_told() -> None:
    found = convergence.arm("nesterov:learning_rate=0.5,momentum=0.8/reset/0.004")
    assert (found.state, found.rate) == ("reset", "0.004")
    assert found.server == {"type": "nesterov", "learning_rate": "0.5", "momentum": "0.8"}
    for wrong in ("sgd", "sgd/sometimes/0.1", "lion/keep/0.1", "sgd/keep/-1"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{wrong}' is no SERVER"):
            convergence.arm(wrong)
    assert convergence.parse_arguments([]).seeds == [1, 2, 3]
    assert convergence.parse_arguments(["--quick"]).seeds == [1]


def test_what_was_trained_before_is_not_trained_again_and_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], texts: dict[str, Path]
) -> None:
    monkeypatch.setattr(convergence.Bench, "_texts", {"iid": texts, "domain": texts})
    words = ["--quick", "--folder", str(tmp_path / "kept"), "--arms", "sgd/keep/0.01", "--central-rates", "0.01"]
    assert convergence.main([*words, "--json", "-", "--plot", str(tmp_path / "out.svg")]) == 0
    first, said = json.loads(capsys.readouterr().out), "sgd/keep/0.01"
    assert {row["split"] for row in first["rows"]} == {"iid", "domain"}
    assert first["alone"].keys() == texts.keys()
    assert "<svg" in (tmp_path / "out.svg").read_text()
    assert convergence.main(words) == 0
    streams = capsys.readouterr()
    assert streams.err == "", "all is there"
    assert said in streams.out
    assert "own held-out text" in streams.out
