"""Our rules and Flower's strategies over identical deltas; skipped where Flower is not installed.

Flower averages what Krum keeps by the number of examples, so all institutions have the same here. Its Bulyan picks by
Multi-Krum, all at once; the paper picks one after the other, so Flower is given that as its selection rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.test_rules import job_of, result

flower: Any = pytest.importorskip("flwr.serverapp.strategy", reason="Flower is not installed")

Float32s = NDArray[np.float32]


def one_after_the_other(contents: list[Any], byzantine: int, wanted: int) -> list[Any]:
    """Bulyan's selection of the paper, by Flower's Krum."""
    from flwr.serverapp.strategy.multikrum import select_multikrum

    left, picked = list(contents), []
    while len(picked) < wanted:
        (best,) = select_multikrum(left, byzantine, 1)
        left = [content for content in left if content is not best]
        picked.append(best)
    return picked


def strategy(name: str, deltas: int, byzantine: int) -> Any:
    match name:
        case "median":
            return flower.FedMedian()
        case "trimmed-mean":
            return flower.FedTrimmedAvg(beta=(byzantine + 0.5) / deltas)
        case "krum":
            return flower.Krum(num_malicious_nodes=byzantine)
        case "multi-krum":
            kept = deltas - byzantine - 2
            return flower.MultiKrum(num_malicious_nodes=byzantine, num_nodes_to_select=kept)
        case _:
            return flower.Bulyan(num_malicious_nodes=byzantine, selection_rule=one_after_the_other)


def theirs(made: Any, values_IN: Float32s) -> Float32s:
    """What Flower's strategy makes of these deltas."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    task = Message(content=RecordDict(), dst_node_id=1, message_type="train")
    replies = []
    for values_N in values_IN:
        arrays, metrics = ArrayRecord([values_N]), MetricRecord({"num-examples": 7, "train_loss": 0.0})
        replies.append(Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=task))
    combined, _ = made.aggregate_train(1, replies)
    return np.asarray(combined.to_numpy_ndarrays()[0], np.float32)


@pytest.fixture(autouse=True)
def _in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say who made them."""
    from flwr.supercore.task_identity import TaskIdentity

    for number in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, number, 1)


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "multi-krum", "bulyan"])
@pytest.mark.parametrize(("deltas", "byzantine"), [(11, 1), (12, 2), (15, 3)])
def test_flowers_strategy_gives_the_same_numbers(name: str, deltas: int, byzantine: int) -> None:
    generator = np.random.default_rng(deltas)
    values = (generator.standard_normal((deltas, 300)) * generator.uniform(0.5, 2, (deltas, 1))).astype(np.float32)
    ours = result(job_of(name, values, byzantine=byzantine))
    np.testing.assert_allclose(ours, theirs(strategy(name, deltas, byzantine), values), rtol=1e-5, atol=1e-6)
