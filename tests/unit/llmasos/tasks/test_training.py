"""Every task in the training loop: golden losses, the same bits after an interruption, no matter how a batch is divided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate  # noqa: E402
from llmasos.tasks.base import tensors_of  # noqa: E402
from llmasos.tasks.registry import objective_of  # noqa: E402
from tests.support.records import (  # noqa: E402
    LABELS,
    a_conversation,
    a_labelled_text,
    a_preference,
    a_question,
    a_translation,
    make_records,
    write_records,
)
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A task, its data, and the mean loss in nats at steps 1, 5, 10, 15 and 20."""

    task: dict[str, Any]
    folder: Callable[[Path], Path]
    golden: tuple[float, ...]
    plan: dict[str, Any] = field(default_factory=dict)


def _records(make: Callable[[str, int], dict[str, Any]]) -> Callable[[Path], Path]:
    return lambda root: make_records(root, make, count=1)["clinic"]


def _text(root: Path) -> Path:
    return make_institutions(root, count=1)["clinic"]


def _mixed(root: Path) -> Path:
    """Text, and conversations beside it."""
    folder = _text(root)
    write_records(folder / "talk.jsonl", [a_conversation("clinic", number) for number in range(40)])
    return folder


TEMPLATE = {role: {"prefix": f"<|{role}|>", "suffix": ""} for role in ("system", "user", "assistant")}
LORA = {"adapter": {"type": "lora", "r": 4}}
BETTER = {"type": "preference", "template": TEMPLATE, "beta": 1}
ASKED = {"type": "question-answering", "stride": 4}
CHAT = {"type": "instruction", "template": TEMPLATE}
MIXED = {"type": "mixture", "tasks": [{"weight": 1, "task": {"type": "causal-lm"}}, {"weight": 3, "task": CHAT}]}
NEXT = {"type": "masked-lm", "next_sentence": True}
CLASSES = {"type": "sequence-classification", "labels": list(LABELS)}

CASES = {
    "seq2seq": Case({"type": "seq2seq"}, _records(a_translation), (5.9722, 5.0464, 4.5167, 3.9878, 3.6718)),
    "masked-lm": Case({"type": "masked-lm"}, _text, (5.5545, 5.3161, 4.8121, 4.4936, 4.0556)),
    "next-sentence": Case(NEXT, _text, (4.5978, 4.4496, 4.1925, 3.7232, 3.4957)),
    "questions": Case(ASKED, _records(a_question), (3.1144, 3.0051, 2.7616, 2.9905, 2.6075)),
    "preference": Case(BETTER, _records(a_preference), (0.6931, 0.6123, 0.344, 0.1521, 0.2062), LORA),
    "mixture": Case(MIXED, _mixed, (5.5497, 5.2854, 4.8157, 4.3753, 3.8921)),
    "instruction": Case(CHAT, _records(a_conversation), (5.5497, 5.1535, 4.816, 4.3829, 3.9031)),
    "classification": Case(CLASSES, _records(a_labelled_text), (0.7009, 0.6932, 0.694, 0.6965, 0.6223)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def make(case: Case, tmp_path: Path, learner: Make) -> Make:
    folder = case.folder(tmp_path / "data")
    return lambda **changes: learner(folder, case.task, **(case.plan | changes))


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in tensors.items()}


def test_twenty_steps_give_the_golden_losses(case: Case, make: Make) -> None:
    one = make(local={"steps": 20}, rounds=4)
    losses = [each.loss_fixed / LOSS_SCALE for each in one.run(one.training())]
    assert [losses[step] for step in (0, 4, 9, 14, 19)] == pytest.approx(case.golden, abs=3e-3)


def test_a_round_that_was_interrupted_ends_with_the_same_bits(make: Make) -> None:
    one = make()
    whole, first, second = one.training(), one.training(), one.training()
    one.run(whole)
    stopped = one.run(first, steps=2)[-1].sums
    second.load_weights(first.weights())
    second.load_moments(first.moments())
    sums = one.run(second, done=stopped)[-1].sums
    assert bits(second.weights()) == bits(whole.weights())
    assert sums.num_tokens <= one.plan.local.tokens_per_round


def test_a_batch_counts_as_many_targets_as_it_has_losses_whatever_its_micro_batches(make: Make) -> None:
    one = make()
    objective, model, batch = objective_of(one.plan.task), one.model(), one.draw(0)
    nats = objective.nats(model, tensors_of(batch, "cpu"))
    assert nats.dtype == torch.float32
    assert nats.shape == (objective.targets(batch),)
    assert float(nats.detach().min()) >= 0
    assert objective.targets(batch) <= one.plan.local.batch_size * one.plan.local.sequence_length


def test_micro_batches_change_nothing_but_rounding(make: Make) -> None:
    whole, divided = make(), make(local={"micro_batch_size": 1})
    first, second = whole.training(), divided.training()
    losses = [
        [each.loss_fixed / LOSS_SCALE for each in one.run(training)]
        for one, training in ((whole, first), (divided, second))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_batches_are_a_function_of_seed_and_step_alone(make: Make) -> None:
    one = make()
    again = one.corpus.batch(seed=5, step=3)
    assert all((again[name] == values).all() for name, values in one.draw(3).items())
    other = one.corpus.batch(seed=6, step=3)
    assert any((other[name] != values).any() for name, values in one.draw(3).items())


def test_rows_have_the_plans_widths_so_that_institutions_batches_go_together(make: Make) -> None:
    one = make()
    shapes = [{name: values.shape for name, values in one.draw(step).items()} for step in range(3)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert {values.shape[0] for values in one.draw(0).values()} == {one.plan.local.batch_size}
    assert all(values.dtype == np.int64 for values in one.draw(0).values())


def test_held_out_rows_are_the_same_each_time_and_no_more_than_the_plan_measures(make: Make) -> None:
    one = make()
    objective, model = objective_of(one.plan.task), one.model()
    sums = [evaluate(model, objective, one.corpus.held_out_rows(), batch_size=size) for size in (1, 1, 4)]
    assert sums[0] == sums[1]
    assert sums[0].num_tokens == sums[2].num_tokens <= one.plan.evaluation.max_tokens
    assert sums[0].perplexity == pytest.approx(sums[2].perplexity, rel=1e-3)


def test_what_is_measured_has_the_shapes_of_training(make: Make, tmp_path: Path) -> None:
    from llmasos.tasks.registry import recipe_of
    from llmasos.tokenizers import load

    one = make()
    sample = recipe_of(one.plan, load(one.tokenizer)).sample(0)
    assert {name: values.shape for name, values in sample.items()} == {
        name: values.shape for name, values in one.draw(0).items()
    }
    objective_of(one.plan.task).nats(one.model(), tensors_of(sample, "cpu"))
