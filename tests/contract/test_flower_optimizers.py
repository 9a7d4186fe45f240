"""Server optimizers against Flower's strategies on identical inputs: skipped where flwr is not installed.

Flower's FedAdam corrects its bias by powers of one more than the round's number, and adds tau outside of the correction:
with a round number so large that nothing is corrected it is the paper's FedAdam, and ours with bias_correction: false; told
of the round before, and with a negligible tau, it is Kingma and Ba's, and ours with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.test_server_optimizers import small_rounds

strategies = pytest.importorskip("flwr.serverapp.strategy")
flwr = pytest.importorskip("flwr.app")
identity = pytest.importorskip("flwr.supercore.task_identity")

FAR = 10**6
"""0.99 to that power is 0."""


@dataclass(frozen=True)
class Same:
    """A strategy, and the section that is to equal it."""

    make: Callable[[], Any]
    section: Mapping[str, Any]
    round_number: Callable[[int], int] = lambda number: number


SAME = {
    "FedAvg": Same(strategies.FedAvg, {"type": "sgd"}),
    "FedAvgM": Same(
        lambda: strategies.FedAvgM(server_learning_rate=0.7, server_momentum=0.9),
        {"type": "momentum", "learning_rate": "0.7", "momentum": "0.9"},
    ),
    "FedAdagrad": Same(
        lambda: strategies.FedAdagrad(eta=0.01, tau=1e-3),
        {"type": "adagrad", "learning_rate": "0.01", "tau": "0.001", "initial_square": "0"},
    ),
    "FedYogi": Same(
        lambda: strategies.FedYogi(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3),
        {"type": "yogi", "learning_rate": "0.01", "tau": "0.001", "initial_square": "0"},
    ),
    "FedAdam, the paper's": Same(
        lambda: strategies.FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-3),
        {"type": "adam", "learning_rate": "0.01", "epsilon": "0.001", "bias_correction": False},
        lambda number: FAR + number,
    ),
    "FedAdam, Kingma and Ba's": Same(
        lambda: strategies.FedAdam(eta=0.01, beta_1=0.9, beta_2=0.99, tau=1e-11),
        {"type": "adam", "learning_rate": "0.01", "epsilon": "0.00000000001"},
        lambda number: number - 1,
    ),
}


def reply(arrays: NDArray[np.float32]) -> Any:
    """An institution's answer: its model, and how much it counts."""
    content = flwr.RecordDict(
        {
            "arrays": flwr.ArrayRecord({"w": flwr.Array(arrays)}),
            "metrics": flwr.MetricRecord({"num-examples": 1, "loss": 1.0}),
        }
    )
    sent = flwr.Message(flwr.RecordDict(), dst_node_id=1, message_type="train")
    return flwr.Message(content, reply_to=sent)


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower makes no message outside of a task."""
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(identity.TaskIdentity, f"_{name}", 1)


@pytest.mark.parametrize("name", SAME)
def test_six_rounds_are_flowers(name: str) -> None:
    same = SAME[name]
    strategy, moved = same.make(), 0.0
    for number, (delta, before, new) in enumerate(small_rounds(same.section), start=1):
        base = flwr.ArrayRecord({"w": flwr.Array(before.copy())})
        if hasattr(strategy, "current_arrays"):  # what configure_train notes of a round
            strategy.current_arrays = base if name == "FedAvgM" else {"w": before.copy()}
        made, _ = strategy.aggregate_train(same.round_number(number), [reply(before + delta)])
        # Flower subtracts models to get the delta, which rounds; of tiny deltas and a negligible tau that shows most.
        np.testing.assert_allclose(new, made["w"].numpy(), rtol=0, atol=1e-5)
        moved = max(moved, float(np.abs(new - before).max()))
    assert moved > 1e-3, "so that this could fail"
