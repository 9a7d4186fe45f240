"""Flower's strategies in a coordinator: formulas in plain numpy, state across restarts, limits, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("flwr")

from common.errors import (
    BlobTooLarge,
    InvalidConfiguration,
    LedgerConflict,
    MissingExtra,
    ModelOverflow,
    StorageFailure,
)
from common.ledger.rulebook.rounds import _check_outcome
from common.plan.model import Plan
from common.reduce import WeightedDelta
from common.reduce.selftest import MemoryBlob
from common.verify.report import Outcome
from common.verify.rounds import check_rounds
from coordinator import app
from coordinator.aggregation import Aggregation
from coordinator.config import CoordinatorConfig, HomeLayout
from coordinator.flower.settings import FlowerSettings
from coordinator.flower.strategy import FlowerCombiner, RoundWork
from tests.support.blobs import Arrays, delta_bytes, model_bytes, random_arrays, tensor_manifest
from tests.support.coordinators import CONSORTIUM, Coordinator
from tests.support.plans import a_plan

MANIFEST = tensor_manifest(trainable={"w": (4, 3), "b": (5,), "scale": ()}, frozen={"f": (6,)})
TRAINED = ("w", "b", "scale")
NAMES = ("a", "b", "c", "d", "e")
PLAN = a_plan(rule={"type": "operator"})
Floats = NDArray[np.float32]


def some(seed: int, scale: float = 1.0) -> Arrays:
    return {name: (scale * values).astype(np.float32) for name, values in random_arrays(MANIFEST, seed=seed).items()}


def work(base: Arrays, deltas: Sequence[Arrays], number: int = 1, before: int | None = None) -> RoundWork:
    weighted = [
        WeightedDelta(name, 10 + place, MemoryBlob(delta_bytes(MANIFEST, delta)))
        for place, (name, delta) in enumerate(zip(NAMES, deltas, strict=False))
    ]
    return RoundWork(PLAN, MANIFEST, MemoryBlob(model_bytes(MANIFEST, base)), weighted, "run-1", number, before)


def combined(combiner: FlowerCombiner, round_work: RoundWork) -> Arrays:
    """The new model by name, its frozen tensors as they were."""
    out = bytearray()
    combiner.combine(round_work, out.extend)
    assert len(out) == round_work.base.ref.size
    numbers = np.frombuffer(bytes(out), "<f4", offset=8 + int.from_bytes(out[:8], "little"))
    arrays, position = {}, 0
    for entry in MANIFEST:
        arrays[entry.name] = numbers[position : position + entry.elements].reshape(entry.shape)
        position += entry.elements
    return arrays


def combiner(folder: Path, strategy: str, **arguments: Any) -> FlowerCombiner:
    return FlowerCombiner(FlowerSettings(strategy=strategy, arguments=arguments), folder)


def models(base: Arrays, deltas: Sequence[Arrays], name: str) -> Floats:
    return np.stack([base[name] + delta[name] for delta in deltas])


def test_fed_trimmed_avg_is_the_mean_without_both_ends(tmp_path: Path) -> None:
    base, deltas = some(0), [some(seed) for seed in range(1, 6)]
    new = combined(combiner(tmp_path, "FedTrimmedAvg", beta=0.2), work(base, deltas))
    for name in TRAINED:
        expected = np.sort(models(base, deltas, name), axis=0)[1:-1].mean(axis=0)
        np.testing.assert_allclose(new[name], expected, rtol=1e-6, atol=1e-6)
    assert new["f"].tobytes() == base["f"].tobytes()


def test_krum_is_the_model_nearest_to_its_neighbours(tmp_path: Path) -> None:
    """Blanchard et al., NeurIPS 2017: the smallest sum of squared distances to the n - f - 2 nearest others."""
    base = some(0)
    deltas = [some(seed, 0.1) for seed in range(1, 5)] + [some(9, 50.0)]
    new = combined(combiner(tmp_path, "Krum", num_malicious_nodes=1), work(base, deltas))
    flat = np.stack([np.concatenate([models(base, [each], name).ravel() for name in TRAINED]) for each in deltas])
    squared = ((flat[:, None] - flat[None]) ** 2).sum(axis=2)
    scores = [np.sort(np.delete(row, place))[: 5 - 1 - 2].sum() for place, row in enumerate(squared)]
    chosen = int(np.argmin(scores))
    assert chosen != 4
    for name in TRAINED:
        np.testing.assert_allclose(new[name], base[name] + deltas[chosen][name], rtol=1e-6, atol=1e-7)


def yogi(base: Arrays, deltas: Sequence[Arrays], state: dict[str, tuple[Any, Any]]) -> Arrays:
    """Reddi et al., arXiv:2003.00295, algorithm 2, FedYogi, with Flower's defaults, in float64."""
    eta, beta_1, beta_2, tau, new = 0.01, 0.9, 0.99, 1e-3, {}
    weights = np.array([10.0 + place for place in range(len(deltas))])
    for name in TRAINED:
        stacked = np.stack([np.float64(delta[name]) for delta in deltas])
        mean = np.tensordot(weights / weights.sum(), stacked, 1)
        m, v = state.get(name, (0.0, np.zeros_like(mean)))
        m = beta_1 * m + (1 - beta_1) * mean
        v = v - (1 - beta_2) * mean**2 * np.sign(v - mean**2)
        state[name] = (m, v)
        new[name] = base[name] + eta * m / (np.sqrt(v) + tau)
    return new


def test_fed_yogi_keeps_its_moments_on_disk_and_a_round_combined_again_gives_the_same_bits(tmp_path: Path) -> None:
    base, state = some(0), dict[str, tuple[Any, Any]]()
    for number in (1, 2, 3):
        deltas = [some(10 * number + seed) for seed in range(3)]
        round_work = work(base, deltas, number, number - 1 or None)
        new = combined(combiner(tmp_path, "FedYogi"), round_work)  # a new one each time: as after a restart
        again = combined(combiner(tmp_path, "FedYogi"), round_work)  # as after a crash before the statement
        expected = yogi(base, deltas, state)
        for name in TRAINED:
            np.testing.assert_allclose(new[name], expected[name], rtol=1e-4, atol=2e-6)
            assert new[name].tobytes() == again[name].tobytes()
        base = {**base, **{name: new[name] for name in TRAINED}}
    assert sorted(path.name for path in (tmp_path / "run-1").iterdir()) == ["00000002.npz", "00000003.npz"]


def test_a_state_that_is_lost_is_no_silent_new_beginning(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match="state after round 1 of run-1 is not there"):
        combined(combiner(tmp_path, "FedYogi"), work(some(0), [some(1)], 2, 1))


def test_a_strategy_that_keeps_what_cannot_be_stored_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flwr.serverapp.strategy as strategies

    class Counting(strategies.FedMedian):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.rounds = 0

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            self.rounds += 1
            return super().aggregate_train(server_round, replies)

    monkeypatch.setattr(strategies, "FedMedian", Counting)
    with pytest.raises(ModelOverflow, match="Counting keeps rounds, a int, between rounds; only arrays can be stored"):
        combined(combiner(tmp_path, "FedMedian"), work(some(0), [some(1), some(2)]))


def test_more_memory_than_allowed_is_refused_with_both_numbers(tmp_path: Path) -> None:
    settings = FlowerSettings(strategy="FedMedian", max_bytes=500)
    with pytest.raises(BlobTooLarge, match=r"FedMedian would hold 504 bytes for 3 institutions, .*max_bytes is 500"):
        combined(FlowerCombiner(settings, tmp_path), work(some(0), [some(1), some(2), some(3)]))


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        ("NoSuch", {}, "strategy is NoSuch, expected one of Bulyan, .*FedYogi"),
        ("Strategy", {}, "strategy is Strategy, expected one of"),
        ("FedTrimmedAvg", {"beta": 0.7}, r"does not take aggregation\.flower\.arguments: .*\[0, 0\.5\)"),
        ("FedAvg", {"eta": 1}, "unexpected keyword argument 'eta'"),
        ("FedAvg", {"fraction_train": 0.5}, "names fraction_train: that is the plan's affair"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_at_the_start(
    tmp_path: Path, strategy: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        combiner(tmp_path, strategy, **arguments)


def test_without_the_extra_a_configured_strategy_says_which_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "find_spec", lambda package: None)
    config = CoordinatorConfig.model_validate(
        {"consortium": "demo", "aggregation": {"flower": {"strategy": "FedMedian"}}}
    )
    with pytest.raises(MissingExtra, match="needs flwr") as caught:
        app.foreign_of(config, HomeLayout(tmp_path))
    assert caught.value.fix == "Install it: pip install 'llmasos[flower]'."
    assert app.foreign_of(CoordinatorConfig(consortium="demo"), HomeLayout(tmp_path)) is None


def test_a_coordinator_takes_the_strategy_from_its_configuration(coordinator: Coordinator) -> None:
    home, draft = coordinator.layout.home, coordinator.draft(rule={"type": "operator"})
    coordinator.close()
    strategy = {"strategy": "FedYogi", "arguments": {"eta": 0.05}}
    config = CoordinatorConfig.model_validate({"consortium": CONSORTIUM, "aggregation": {"flower": strategy}})
    started = app.CoordinatorApp(home, config)
    try:
        started.engine.check_plan(draft)
        aggregator = started.engine._ports.aggregator
        assert isinstance(aggregator, Aggregation)
        assert aggregator._combiner().rule == "flower:flwr==1.41.0:FedYogi(eta=0.05)"
    finally:
        started.blobs.close()
        started.database.close()
        coordinator.restart()


# --- a run ------------------------------------------------------------------------------------------------------------


def with_strategy(coordinator: Coordinator, strategy: str, **arguments: Any) -> None:
    coordinator.aggregation._foreign = combiner(coordinator.layout.home / "flower", strategy, **arguments)


@pytest.fixture
def coordinator(tmp_path: Path) -> Any:
    made = Coordinator(tmp_path / "home")
    yield made
    made.close()


def test_a_runs_statements_name_the_strategy_and_verify_calls_each_round_a_gap(coordinator: Coordinator) -> None:
    with_strategy(coordinator, "FedTrimmedAvg", beta=0.34)
    coordinator.open_round(rule={"type": "operator"}, rounds=2)
    run = coordinator.play()
    rules = [record.closed.rule for record in run.rounds if record.closed is not None]
    named = "flower:flwr==1.41.0:FedTrimmedAvg(beta=0.34)"
    assert rules == [named, named, "operator"]
    assert len({str(record.closed.outputs.model) for record in run.rounds if record.closed is not None}) == 2
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert check.examined == "0 of 2 recomputed here, equal in every bit"
    assert check.outcome is Outcome.GAPS
    first = check.findings[0].text
    assert first == (
        f"Round 1 of {run.run} was not recomputed: the rule that combined it is the operator's own ({named})."
    )


@pytest.mark.parametrize(
    "rule", ["operator", "weighted-mean", "flower:flwr==1.41.0:FedMedian", "flower:flwr==1.41.0:X()\n"]
)
def test_a_round_that_names_no_strategy_is_refused_by_the_ledger(coordinator: Coordinator, rule: str) -> None:
    with_strategy(coordinator, "FedMedian")
    coordinator.open_round(rule={"type": "operator"}, rounds=1)
    run = coordinator.play()
    record = run.rounds[0]
    assert record.closed is not None
    _check_outcome(run, record, record.closed)
    with pytest.raises(LedgerConflict, match=r"was closed by rule .*; by the plan it is the operator's, so expected"):
        _check_outcome(run, record, record.closed.model_copy(update={"rule": rule}))


def test_a_plan_that_leaves_its_rule_to_an_operator_without_one_does_not_start(coordinator: Coordinator) -> None:
    draft = coordinator.draft(rule={"type": "operator"})
    with pytest.raises(InvalidConfiguration, match="rule is `operator`, but this coordinator's configuration names no"):
        coordinator.engine.check_plan(draft)
    coordinator.engine.check_plan(coordinator.draft())


@pytest.mark.parametrize(
    "other", [{"downlink": {"type": "int8"}}, {"server_optimizer": {"type": "sgd", "learning_rate": 2}}]
)
def test_what_would_come_after_a_strategy_is_refused_with_the_plan(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rule operator: expected no downlink, and server_optimizer sgd"):
        Plan.model_validate(PLAN.model_dump(mode="json") | other)
