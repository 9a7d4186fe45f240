"""Training alone: the run's own batches and arithmetic without the others, measured on own text, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UsageError
from common.ledger.cohort import local_seed, round_seed
from participant.bench.alone import AlonePorts, Gain, TrainingAlone
from participant.bench.worker_protocol import Evaluate, Progress, Result, Train
from tests.support.agents import FakeWorkbench, Institution
from tests.support.blobs import random_arrays
from tests.support.participants import MANIFEST, RUN


class Bench(FakeWorkbench):
    """Keeps the bytes of each model that it was given, by message."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.given: list[bytes] = []

    def _work(self, message: Train | Evaluate, over: Any, on_progress: Callable[[Progress], None]) -> None:
        self.given.append((self.job(RUN) / message.base).read_bytes())
        super()._work(message, over, on_progress)

    def evaluate(self, message: Evaluate, over: Any, on_progress: Callable[[Progress], None]) -> Result:
        result = super().evaluate(message, over, on_progress)
        fewer = result.evaluation.model_copy(update={"loss_sum_fixed": len(self.given)})
        return result.model_copy(update={"evaluation": fewer})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "alone" / "jobs")


@pytest.fixture
def compare(tmp_path: Path, north: Institution, bench: Bench) -> Callable[..., Gain]:
    def train(steps: int | None = None) -> Gain:
        session: Any = north.session
        workbench: Any = bench
        ports = AlonePorts("north", session, workbench, north.records, north.coordinator.clock, "blake3")
        return TrainingAlone(ports, tmp_path / "alone", north.run).train(steps, lambda text: None)

    return train


@pytest.fixture
def trained(north: Institution) -> Institution:
    """Two rounds were committed."""
    north.open_round(rounds=3)
    for _ in range(2):
        north.agent.work(north.run, north.round)
        north.others_act()
    assert len(north.run.committed()) == 2
    return north


def weights(model: bytes) -> np.ndarray:
    """The trainable numbers of a model of MANIFEST: 36 of them, before three frozen ones."""
    return np.frombuffer(model[-39 * 4 : -3 * 4], dtype="<f4")


def test_alone_trains_on_the_rounds_own_seeds_and_applies_each_delta_as_a_federation_of_one(
    trained: Institution, bench: Bench, compare: Callable[..., Gain], tmp_path: Path
) -> None:
    gain = compare()
    steps = trained.run.statement.plan.local.steps
    assert (gain.steps, gain.rounds) == (2 * steps, 2)
    seeds = [local_seed(record.opened.seed, "north") for record in trained.run.committed()]
    sent = [message for message in bench.asked if isinstance(message, Train)]
    assert [(each.round, each.trained_rounds, each.seed, each.steps) for each in sent] == [
        (1, 0, seeds[0], None),
        (2, 1, seeds[1], None),
    ]
    initial = trained.coordinator.blobs.path(trained.run.statement.initial.model).read_bytes()
    newest = trained.coordinator.blobs.path(trained.run.model).read_bytes()
    assert bench.given[0] == initial
    assert bench.given[3] == newest
    expected = weights(initial)
    for number, given in ((1, bench.given[1]), (2, bench.given[2])):
        arrays = random_arrays(MANIFEST, seed=number, scale=0.01)
        delta = np.concatenate([np.ravel(array) for array in arrays.values()]).astype("<f4")
        expected = (expected + delta[:36]).astype("<f4")
        assert np.array_equal(weights(given), expected)
    assert (gain.alone.loss_sum_fixed, gain.consortium.loss_sum_fixed) == (3, 4)
    kept = trained.records.alone(RUN)
    assert kept is not None
    assert (kept.steps, kept.loss_sum_fixed, kept.num_tokens) == (2 * steps, 3, 100)
    assert not (tmp_path / "alone").exists()


def test_alone_nothing_is_encoded_whatever_the_runs_codec(
    north: Institution, bench: Bench, compare: Callable[..., Gain], tmp_path: Path
) -> None:
    north.open_round(rounds=2, codec={"type": "int4"})
    north.agent.work(north.run, north.round)
    north.others_act()
    assert compare().rounds == 1
    initial, after = weights(bench.given[0]), weights(bench.given[1])
    arrays = random_arrays(MANIFEST, seed=1, scale=0.01)
    delta = np.concatenate([np.ravel(array) for array in arrays.values()]).astype("<f4")
    assert np.array_equal(after, (initial + delta[:36]).astype("<f4"))


def test_steps_may_be_fewer_or_more_than_the_rounds_had(
    trained: Institution, bench: Bench, compare: Callable[..., Gain]
) -> None:
    per_round = trained.run.statement.plan.local.steps
    assert compare(2 * per_round + 1).steps == 2 * per_round + 1
    sent = [message for message in bench.asked if isinstance(message, Train)]
    assert [each.steps for each in sent] == [None, None, 1]
    assert sent[2].seed == local_seed(round_seed(trained.run.place.digest, 3), "north")


def test_before_the_first_commit_there_is_nothing_to_compare(north: Institution, compare: Callable[..., Gain]) -> None:
    north.open_round()
    with pytest.raises(UsageError, match=r"has committed no round yet"):
        compare()


def test_a_run_with_personal_layers_has_no_model_to_compare_with(
    north: Institution, compare: Callable[..., Gain]
) -> None:
    north.open_round(personal=["bias"])
    with pytest.raises(UsageError, match=r"has personal layers: the consortium's model alone is no whole model"):
        compare()


def test_what_fails_leaves_no_copies_of_text_behind(
    trained: Institution, bench: Bench, compare: Callable[..., Gain], tmp_path: Path
) -> None:
    bench.failure = UsageError("No such folder.")
    with pytest.raises(UsageError, match=r"No such folder"):
        compare()
    assert not (tmp_path / "alone").exists()
    assert trained.records.alone(RUN) is None
