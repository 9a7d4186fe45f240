"""llmasos.flower.Strategy beside Flower's own FedAvg, on the same replies; no engine, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from common.errors import InvalidConfiguration
from llmasos.flower import Strategy

NODES = (11, 12, 13)


class FakeGrid:
    """Nodes that are there."""

    def get_node_ids(self) -> list[int]:
        return list(NODES)


@pytest.fixture(autouse=True)
def in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower lets messages be made in a run only."""
    for name, value in (("_run_id", 1), ("_task_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


def arrays(seed: int) -> ArrayRecord:
    chosen = np.random.default_rng(seed)
    return ArrayRecord({name: Array(chosen.standard_normal((6, 4)).astype(np.float32)) for name in ("w", "b")})


def asked(strategy: FedAvg, base: ArrayRecord, number: int = 1) -> list[Message]:
    messages = list(strategy.configure_train(number, base, ConfigRecord(), FakeGrid()))
    for message in messages:  # what a grid does on the way
        message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
    return sorted(messages, key=lambda message: message.metadata.dst_node_id)


def reply(message: Message, content: ArrayRecord, weight: float, name: str | None = None) -> Message:
    records: dict[str, Any] = {"arrays": content, "metrics": MetricRecord({"num-examples": weight, "loss": weight / 7})}
    if name is not None:
        records["config"] = ConfigRecord({"institution": name})
    return Message(content=RecordDict(records), reply_to=message)


def replies_to(messages: list[Message]) -> list[Message]:
    return [reply(message, arrays(seed), 100 * seed) for seed, message in enumerate(messages, 1)]


def test_the_mean_is_fedavgs_up_to_rounding_and_the_metrics_are_fedavgs() -> None:
    ours, theirs, base = Strategy(), FedAvg(min_train_nodes=3, min_available_nodes=3), arrays(0)
    new, metrics = ours.aggregate_train(1, replies_to(asked(ours, base)))
    expected, their_metrics = theirs.aggregate_train(1, replies_to(asked(theirs, base)))
    assert new is not None
    assert expected is not None
    for name in base:
        np.testing.assert_allclose(new[name].numpy(), expected[name].numpy(), rtol=1e-6, atol=1e-6)
        assert new[name].numpy().dtype == np.float32
    assert metrics == their_metrics


def test_named_replies_give_the_same_bits_in_any_order() -> None:
    results = set()
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        strategy, base = Strategy(), arrays(0)
        messages = asked(strategy, base)
        content = [reply(messages[seed], arrays(seed + 1), 3**seed, name) for seed, name in enumerate("cab")]
        new, _ = strategy.aggregate_train(1, [content[index] for index in order])
        assert new is not None
        results.add(b"".join(new[name].numpy().tobytes() for name in base))
    assert len(results) == 1


def test_clients_get_the_rounds_seed_and_how_many_rounds_were_trained() -> None:
    strategy, base = Strategy(seeds=lambda number: 1000 + number), arrays(0)
    strategy.aggregate_train(1, replies_to(asked(strategy, base)))
    config = asked(strategy, base, 2)[0].content["config"]
    assert (config["server-round"], config["seed"], config["trained-rounds"]) == (2, 1002, 1)


def test_a_bad_reply_is_left_out_and_below_the_quorum_the_model_stays() -> None:
    strategy, base = Strategy({"quorum": 2}, min_train_nodes=3), arrays(0)
    one, two, three = asked(strategy, base)
    broken = reply(two, ArrayRecord({"w": base["w"], "b": Array(np.full((6, 4), np.inf, np.float32))}), 5, "two")
    fraction = reply(three, arrays(3), 0.5, "three")
    assert strategy.aggregate_train(1, [reply(one, arrays(1), 4, "one"), broken, fraction])[0] is None
    assert strategy.refused == {1: {"two": "non-finite-delta", "three": "implausible-weight"}}
    assert strategy.committed == 0
    one, two, three = asked(strategy, base, 2)
    good = [reply(one, arrays(1), 4, "one"), reply(two, arrays(2), 4, "two")]
    assert strategy.aggregate_train(2, [*good, reply(three, arrays(3), float("nan"), "three")])[0] is not None
    assert strategy.committed == 1


def test_bytes_that_are_no_array_are_left_out() -> None:
    strategy, base = Strategy({"quorum": 1}), arrays(0)
    one, *_ = asked(strategy, base)
    hostile = ArrayRecord({name: Array("float32", (6, 4), "numpy.ndarray", b"no array") for name in ("w", "b")})
    assert strategy.aggregate_train(1, [reply(one, hostile, 4, "one")]) == (None, None)
    assert strategy.refused == {1: {"one": "wrong-tensors"}}


def test_sections_that_are_no_plans_are_refused_by_field() -> None:
    with pytest.raises(InvalidConfiguration, match=r"Strategy: rule is wrong: .*weighted-mean"):
        Strategy({"rule": {"type": "no-such-rule"}})


def test_a_folder_of_ones_own_holds_the_rounds(tmp_path: Path) -> None:
    strategy, base = Strategy(folder=tmp_path), arrays(0)
    strategy.aggregate_train(1, replies_to(asked(strategy, base)))
    assert (tmp_path / "model").stat().st_size > 2 * 6 * 4 * 4
