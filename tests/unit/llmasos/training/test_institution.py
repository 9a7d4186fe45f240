"""An institution trained in this process: the worker's very bits, round after round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

from common.errors import WrongTensors
from common.ledger.cohort import local_seed
from common.plan.model import Plan
from llmasos.training.corpus import Source
from llmasos.training.institution import Institution, RoundTask, initial_arrays, measure, train
from llmasos.training.loop import LocalTraining, RoundWork
from tests.support.jobs import a_training_plan, make_prepared
from tests.support.texts import make_institutions
from tests.unit.llmasos.training.conftest import Trainee

Arrays = dict[str, NDArray[np.float32]]


def an_institution(root: Path, plan: Plan) -> Institution:
    folder = make_institutions(root / "data", count=1)["clinic"]
    return Institution("clinic", make_prepared(root, plan), (Source(folder),), root / "home", allow_cuda=False)


def same(one: Arrays, other: Arrays) -> bool:
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_two_rounds_are_those_of_one_training_that_never_stopped(tmp_path: Path, machine: Any) -> None:
    """The model of round 1 is given to round 2 unchanged, so both together are one undisturbed training."""
    plan = a_training_plan()
    clinic = an_institution(tmp_path, plan)
    base = initial_arrays(clinic.prepared)
    first = train(clinic, base, RoundTask(1, 0, seed=40))
    second = train(clinic, first.arrays, RoundTask(2, 1, seed=41))

    from llmasos.preparation import load_prepared
    from llmasos.training.corpus import prepare_corpus

    tokenizer = load_prepared(clinic.prepared).tokenizer
    with prepare_corpus(clinic.sources, tokenizer, tmp_path / "tokens", plan) as corpus:
        trainee = Trainee(corpus, machine)
        training = LocalTraining(plan, trainee.model(), machine)
        for index, seed in enumerate((local_seed(40, "clinic"), local_seed(41, "clinic"))):
            work = RoundWork(trained_rounds=index, seed=seed)
            training.run_round(work, lambda step, seed=seed: corpus.batch(seed=seed, step=step))  # type: ignore[misc]
        expected = {name: value.numpy() for name, value in training.weights().items()}
    assert {name: second.arrays[name].tobytes() for name in expected} == {
        name: value.tobytes() for name, value in expected.items()
    }
    assert second.sums.num_tokens == plan.local.tokens_per_round
    assert not same(first.arrays, base)


def test_a_round_trained_twice_gives_the_same_bits(tmp_path: Path) -> None:
    clinic = an_institution(tmp_path, a_training_plan())
    first = train(clinic, initial_arrays(clinic.prepared), RoundTask(1, 0, seed=1))
    tasks = [RoundTask(2, 1, seed=2)] * 2
    assert same(*(train(clinic, first.arrays, task).arrays for task in tasks))


def test_without_kept_moments_another_state_comes_out_and_nothing_is_written(tmp_path: Path) -> None:
    kept = an_institution(tmp_path / "keep", a_training_plan())
    reset = an_institution(tmp_path / "reset", a_training_plan(local={"optimizer_state": "reset"}))
    ends = []
    for clinic in (kept, reset):
        first = train(clinic, initial_arrays(clinic.prepared), RoundTask(1, 0, seed=1))
        ends.append(train(clinic, first.arrays, RoundTask(2, 1, seed=2)).arrays)
    assert not same(*ends)
    assert (kept.home / "moments").exists()
    assert not (reset.home / "moments").exists()


def test_another_name_draws_other_batches(tmp_path: Path) -> None:
    clinic = an_institution(tmp_path, a_training_plan())
    base, task = initial_arrays(clinic.prepared), RoundTask(1, 0, seed=1)
    assert not same(train(clinic, base, task).arrays, train(replace(clinic, name="bank"), base, task).arrays)


def test_training_measures_the_base_and_leaves_it_alone(tmp_path: Path) -> None:
    clinic = an_institution(tmp_path, a_training_plan())
    base = initial_arrays(clinic.prepared)
    before = {name: values.copy() for name, values in base.items()}
    trained = train(clinic, base, RoundTask(1, 0, seed=1))
    assert same(base, before)
    assert trained.evaluation == measure(clinic, base)
    assert measure(clinic, trained.arrays).perplexity < trained.evaluation.perplexity


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    clinic = an_institution(tmp_path, a_training_plan())
    base = initial_arrays(clinic.prepared)
    name = next(iter(base))
    with pytest.raises(WrongTensors, match=name.replace(".", r"\.")):
        measure(clinic, base | {name: np.zeros(3, np.float32)})
