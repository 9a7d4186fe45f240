"""Rounds of every aggregation rule at the coordinator: what is committed and recomputed, what one wrong delta does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common import tensors
from common.reduce.registry import RULES
from common.verify.rounds import recompute
from tests.independent.arithmetic import outputs
from tests.support.blobs import read_blob
from tests.support.coordinators import BASE, Coordinator
from tests.support.participants import MANIFEST

SECTIONS: dict[str, dict[str, Any]] = {
    **{name: {"type": name} for name in RULES},
    "norm-clipping": {"type": "norm-clipping", "max_l2": "0.5"},
    **{name: {"type": name, "byzantine": 0} for name in ("krum", "multi-krum", "bulyan")},
}
"""Of three deltas."""


@pytest.mark.parametrize("name", RULES)
def test_a_committed_model_is_the_rules_and_is_recomputed(coordinator: Coordinator, name: str) -> None:
    coordinator.open_round(rule=SECTIONS[name], quorum=3)
    deltas = {}
    for institution, num_tokens in (("north", 17), ("east", 64), ("south", 1)):
        deltas[institution] = (num_tokens, coordinator[institution].delta())
        coordinator[institution].contribute(deltas[institution][1], num_tokens=num_tokens)
    coordinator.advance()
    run = coordinator.run
    closed = run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.rule) == ("committed", name)
    statement = run.statement.model_dump(mode="json")
    expected = outputs(statement, BASE, [deltas[institution] for institution in sorted(deltas)])[0]
    assert read_blob(coordinator.blobs, run.model) == expected
    assert recompute(run, run.rounds[0], coordinator.blobs) == closed.outputs


@pytest.mark.parametrize(("name", "ruined"), [("weighted-mean", True), ("median", False)])
def test_one_wrong_delta_ruins_a_mean_and_not_a_median(coordinator: Coordinator, name: str, ruined: bool) -> None:
    coordinator.open_round(rule={"type": name}, quorum=3)
    header = tensors.trainable_header(MANIFEST)
    count = tensors.trainable_elements(MANIFEST)
    for institution, value in (("north", 0.01), ("east", 0.02), ("south", -30.0)):
        delta = header + np.full(count, value, "<f4").tobytes()
        coordinator[institution].contribute(delta, num_tokens=10)
    coordinator.advance()
    start = len(tensors.model_header(MANIFEST))
    model = np.frombuffer(read_blob(coordinator.blobs, coordinator.run.model)[start:], "<f4")[:count]
    moved = model - np.frombuffer(BASE[start:], "<f4")[:count]
    assert (np.abs(moved).max() > 1) == ruined
