"""Rounds whose plan weighs deltas otherwise than by tokens: the model, its recomputation, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from common.contributions.figures import round_figures
from common.errors import ImplausibleWeight, MalformedStatement
from common.ledger.staleness import weights
from common.statements.envelope import parse
from common.verify.rounds import recompute
from tests.independent.arithmetic import outputs
from tests.support.blobs import read_blob
from tests.support.coordinators import BASE, Coordinator

SAID = {"north": (17, 60), "east": (64, 65), "south": (1, 8)}
"""num_tokens and num_bytes of each."""
WEIGHED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "tokens": ({"type": "tokens"}, {"north": 17, "east": 64, "south": 1}),
    "capped-tokens": ({"type": "capped-tokens", "cap": 16}, {"north": 16, "east": 16, "south": 1}),
    "bytes": ({"type": "bytes", "max_bytes_a_token": 8}, {"north": 60, "east": 65, "south": 8}),
    "equal": ({"type": "equal"}, dict.fromkeys(SAID, 65536)),
}


def said(kind: str, num_tokens: int, num_bytes: int) -> dict[str, Any]:
    return {"mode": "clear", "num_tokens": num_tokens} | ({"num_bytes": num_bytes} if kind == "bytes" else {})


@pytest.mark.parametrize("kind", WEIGHED)
def test_a_committed_model_is_weighted_by_the_plan_and_recomputed(coordinator: Coordinator, kind: str) -> None:
    section, expected = WEIGHED[kind]
    coordinator.open_round(weighting=section, quorum=3)
    deltas = {}
    for name, (num_tokens, num_bytes) in SAID.items():
        deltas[name] = expected[name], coordinator[name].delta()
        coordinator[name].contribute(deltas[name][1], weight=said(kind, num_tokens, num_bytes))
    coordinator.advance()
    run = coordinator.run
    record = run.rounds[0]
    assert record.closed is not None
    assert {entry.institution: entry.num_tokens for entry in record.closed.inputs} == {
        n: t for n, (t, _) in SAID.items()
    }
    assert weights(run, record) == expected
    made = outputs(run.statement.model_dump(mode="json"), BASE, [deltas[name] for name in sorted(deltas)])[0]
    assert read_blob(coordinator.blobs, run.model) == made
    assert recompute(run, record, coordinator.blobs) == record.closed.outputs
    shares = {row.institution: row.share for row in round_figures(run, record, coordinator.blobs).rows}
    assert shares == {name: weight / sum(expected.values()) for name, weight in expected.items()}


def test_equal_weights_give_the_bits_of_equal_tokens(coordinator: Coordinator) -> None:
    coordinator.open_round(weighting={"type": "equal"}, quorum=3)
    deltas = []
    for name in sorted(SAID):
        deltas.append((1, coordinator[name].delta()))
        coordinator[name].contribute(deltas[-1][1], num_tokens=SAID[name][0])
    coordinator.advance()
    made = outputs(coordinator.run.statement.model_dump(mode="json"), BASE, deltas)[0]
    assert read_blob(coordinator.blobs, coordinator.run.model) == made


@pytest.mark.parametrize("kind", ["capped-tokens", "bytes", "equal"])
def test_a_late_delta_weighs_less_whatever_deltas_are_weighed_by(coordinator: Coordinator, kind: str) -> None:
    section, _ = WEIGHED[kind]
    mode = {"type": "buffered", "buffer": 2, "max_staleness": 2}
    coordinator.open_round(weighting=section, mode=mode, quorum=1, rounds=3)
    own = coordinator["south"]
    metrics = own.metrics()
    late = own.contribution(own.send(own.delta()), metrics, weight=said(kind, 20, 50))
    for name in ("north", "east"):
        coordinator[name].contribute(weight=said(kind, 20, 50))
    coordinator.advance()
    own.submit(late, metrics)
    coordinator["north"].contribute(weight=said(kind, 20, 50))
    coordinator.advance()
    record = coordinator.run.rounds[1]
    weighed = weights(coordinator.run, record)
    assert weighed["south"] == math.floor(weighed["north"] / math.sqrt(2))
    assert record.closed is not None
    assert recompute(coordinator.run, record, coordinator.blobs) == record.closed.outputs


BYTES = WEIGHED["bytes"][0]


@pytest.mark.parametrize(
    ("weighting", "weight", "error", "words"),
    [
        (BYTES, {"num_tokens": 5}, MalformedStatement, "says no num_bytes, and the plan weighs deltas by bytes"),
        (BYTES, {"num_tokens": 5, "num_bytes": 0}, ImplausibleWeight, "num_bytes is 0, expected 1 to 40 of 5 tokens"),
        (BYTES, {"num_tokens": 5, "num_bytes": 41}, ImplausibleWeight, "num_bytes is 41, expected 1 to 40 of 5 tokens"),
        (BYTES, {"num_tokens": 65, "num_bytes": 5}, ImplausibleWeight, "num_tokens is 65, expected 1 to 64 in a round"),
        ({"type": "equal"}, {"num_tokens": 65}, ImplausibleWeight, "num_tokens is 65, expected 1 to 64 in a round"),
        ({"type": "tokens"}, {"num_tokens": 5, "num_bytes": 5}, MalformedStatement, "num_bytes is 5, expected none"),
    ],
)
def test_a_weight_that_the_plan_does_not_imply_is_refused(
    coordinator: Coordinator, weighting: dict[str, Any], weight: dict[str, int], error: type[Exception], words: str
) -> None:
    coordinator.open_round(weighting=weighting)
    with pytest.raises(error, match=words):
        coordinator["north"].contribute(weight={"mode": "clear"} | weight)


def test_an_evaluation_says_no_bytes(coordinator: Coordinator) -> None:
    coordinator.open_round(weighting=BYTES, quorum=1, rounds=1)
    for name in SAID:
        coordinator[name].contribute(weight=said("bytes", 5, 5))
    coordinator.advance()
    coordinator.advance()
    assert coordinator.run.rounds[-1].opened.task == "evaluate"
    with pytest.raises(MalformedStatement, match="num_bytes is 3, expected none in a round of this plan"):
        coordinator["north"].contribute(weight=said("bytes", 0, 3))


def test_a_weight_without_bytes_is_written_as_it_was_before_there_were_any(coordinator: Coordinator) -> None:
    coordinator.open_round()
    statement = coordinator["north"].contribution()
    assert b'"weight":{"mode":"clear","num_tokens":15}' in parse(statement.envelope).payload
