"""A committed model is the documented formula over the stored contributions, bit for bit; and what is kept of them.

The recomputation here reads the ledger's rows and the blobs' files and calls nothing of ours: docs/protocol.md#arithmetic.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.blobs.store import FolderBlobStore
from common.errors import LLMasOSError, MissingBlob, ModelOverflow, StorageFailure
from common.ledger.state import RoundRecord, RunRecord
from common.statements.kinds import RoundOutputs, SealedInput
from common.tensors import delta_size
from coordinator.aggregation import UNREFERENCED_SECONDS, Aggregation, kept_roots
from coordinator.rounds.phases import Phase
from tests.support.blobs import delta_bytes, put_blob, random_arrays
from tests.support.coordinators import BASE, TOKENIZER, Coordinator, InlineEngine
from tests.support.participants import MANIFEST

Floats = NDArray[np.float32]


def stored_statements(home: Path) -> list[tuple[str, dict[str, Any]]]:
    """Kind and predicate of every statement, straight from the database."""
    connection = sqlite3.connect(home / "state.sqlite")
    rows = connection.execute('SELECT envelope FROM ledger ORDER BY "index"').fetchall()
    connection.close()
    found = []
    for (envelope,) in rows:
        statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
        found.append((statement["predicateType"].split("/")[-2], statement["predicate"]))
    return found


def stored_blob(home: Path, ref: dict[str, Any]) -> tuple[bytes, Floats]:
    """Header and numbers of a blob's file."""
    data = (home / "blobs" / ref["algorithm"] / ref["root"][:2] / f"{ref['root']}.blob").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    return data[:begin], np.frombuffer(data, "<f4", offset=begin)


def recomputed(home: Path, statements: list[tuple[str, dict[str, Any]]], closed: dict[str, Any]) -> bytes:
    """The new model of one committed training round."""
    plan = next(predicate for kind, predicate in statements if kind == "plan")
    opened = next(p for kind, p in statements if kind == "round-opened" and p["round"] == closed["round"])
    given = {p["institution"]: p for kind, p in statements if kind == "contribution" and p["round"] == closed["round"]}
    header, base = stored_blob(home, opened["inputs"]["model"])
    lr = np.float32(float(Decimal(plan["plan"]["server_optimizer"]["learning_rate"])))
    trainable = sum(int(np.prod(t["shape"])) for t in plan["manifest"] if t["group"] == "trainable")
    acc, total = np.zeros(trainable, np.float64), 0
    for name in sorted((entry["institution"] for entry in closed["inputs"]), key=str.encode):
        n = given[name]["weight"]["num_tokens"]
        _, d = stored_blob(home, given[name]["blobs"]["delta"])
        acc = acc + np.float64(n) * d.astype(np.float64)
        total += n
    g = (acc / np.float64(total)).astype(np.float32)
    new = base[:trainable] + lr * g
    assert new.dtype == np.float32
    return header + new.astype("<f4").tobytes() + base[trainable:].tobytes()


@pytest.mark.parametrize("learning_rate", ["1", "0.7"])
def test_every_committed_model_equals_an_independent_recomputation_in_every_bit(
    coordinator: Coordinator, learning_rate: str
) -> None:
    coordinator.start_run(rounds=3, server_optimizer={"type": "sgd", "learning_rate": learning_rate})
    coordinator.play()
    home = coordinator.layout.home
    statements = stored_statements(home)
    closings = [p for kind, p in statements if kind == "round-closed"]
    assert len(closings) == 4
    for closed in closings[:3]:
        header, numbers = stored_blob(home, closed["outputs"]["model"])
        assert header + numbers.tobytes() == recomputed(home, statements, closed)
    assert closings[3]["outputs"] == closings[2]["outputs"], "the evaluation changes nothing"


def test_adding_up_shows_that_it_goes_on(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    record = coordinator.run.rounds[0]
    assert record.closed is not None
    beats: list[int] = []
    watched = Aggregation(coordinator.blobs, beat=lambda: beats.append(1))
    assert watched.aggregate(coordinator.run, record, record.closed.inputs) == record.closed.outputs
    assert len(beats) >= len(record.contributions)


def test_a_straggler_leaves_no_trace_in_the_model(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2, rounds=1)
    for name in ("south", "east"):
        coordinator[name].contribute()
    coordinator["north"].send(coordinator["north"].delta())
    coordinator.clock.advance(seconds=3600)
    coordinator.advance()
    home = coordinator.layout.home
    statements = stored_statements(home)
    closed = next(p for kind, p in statements if kind == "round-closed")
    header, numbers = stored_blob(home, closed["outputs"]["model"])
    assert header + numbers.tobytes() == recomputed(home, statements, closed)


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_a_delta_that_changed_on_disk_abandons_the_round_and_keeps_the_model(
    coordinator: Coordinator, what: str
) -> None:
    coordinator.open_round()
    for participant in coordinator.participants.values():
        participant.contribute()
    path = coordinator.blobs.path(coordinator.run.rounds[0].contributions["north"].contribution.blobs["delta"])
    if what == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("abandoned", "missing-blob" if what == "gone" else "corrupt-chunk")
    assert closed.outputs.model == coordinator.run.statement.initial.model
    assert {entry.status for entry in closed.inputs} == {"unused"}


class Failing(Aggregation):
    """Fails once."""

    def __init__(self, blobs: FolderBlobStore, failure: LLMasOSError) -> None:
        super().__init__(blobs)
        self._failure: LLMasOSError | None = failure

    def aggregate(self, run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return super().aggregate(run, current, inputs)


def with_aggregator(coordinator: Coordinator, aggregator: Aggregation) -> None:
    coordinator.engine = InlineEngine(replace(coordinator.engine._ports, aggregator=aggregator))


def test_a_full_disk_stalls_the_run_and_the_next_turn_goes_on(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for participant in coordinator.participants.values():
        participant.contribute()
    with_aggregator(coordinator, Failing(coordinator.blobs, StorageFailure("blobs: no space left on device.")))
    coordinator.advance()
    assert coordinator.engine.state_of(coordinator.run).phase is Phase.SEALED
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert closed.outcome == "committed"


def test_a_model_that_would_not_be_finite_is_not_made(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for participant in coordinator.participants.values():
        participant.contribute()
    with_aggregator(coordinator, Failing(coordinator.blobs, ModelOverflow("The new model would hold inf.")))
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("abandoned", "model-overflow")


# --- what is kept ----------------------------------------------------------------------------------------------------


def deltas_kept(coordinator: Coordinator) -> list[bool]:
    """By training round: whether all its deltas are still there."""
    kept = []
    for record in coordinator.run.rounds:
        refs = [
            entry.contribution.blobs["delta"] for entry in record.contributions.values() if entry.contribution.blobs
        ]
        there = {coordinator.blobs.contains(ref) for ref in refs}
        assert len(there) <= 1, "all or none"
        if refs:
            kept.append(there.pop())
    return kept


def test_without_retention_every_round_can_be_recomputed(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=3)
    coordinator.play()
    assert deltas_kept(coordinator) == [True, True, True]


def test_retention_deletes_old_deltas_and_their_base_models_and_nothing_else(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=4, retention={"delta_rounds": 2})
    run = coordinator.play()
    assert deltas_kept(coordinator) == [False, False, False, True], "the evaluation is one of the two newest"
    there = [coordinator.blobs.contains(record.opened.inputs.model) for record in run.rounds]
    assert there == [True, False, False, True, True], "the first is the plan's own"
    assert coordinator.blobs.contains(run.statement.initial.tokenizer)
    assert coordinator.blobs.contains(run.model)


DELTA = delta_size(MANIFEST)


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        ({"delta_bytes": 6 * DELTA}, [False, False, True, True]),
        ({"delta_bytes": 9 * DELTA - 1}, [False, False, True, True]),
        ({"delta_bytes": 9 * DELTA}, [False, True, True, True]),
        ({"delta_bytes": 10**9}, [True, True, True, True]),
        ({"delta_bytes": 1}, [False, False, False, True]),
        ({"delta_bytes": 9 * DELTA, "delta_rounds": 3}, [False, False, True, True]),
        ({"delta_bytes": 6 * DELTA, "delta_rounds": 4}, [False, False, True, True]),
        ({"delta_bytes": 10**9, "delta_rounds": 1}, [False, False, False, False]),
    ],
    ids=str,
)
def test_retention_by_bytes_keeps_what_fits_and_always_one_round_and_the_stricter_bound_wins(
    coordinator: Coordinator, retention: dict[str, int], kept: list[bool]
) -> None:
    coordinator.start_run(rounds=4, retention=retention)
    coordinator.play()
    assert deltas_kept(coordinator) == kept
    there = [coordinator.blobs.contains(record.opened.inputs.model) for record in coordinator.run.rounds[1:4]]
    assert there == kept[1:], "base models go with the deltas; the first is the plan's own"


def test_deltas_of_the_open_round_are_never_given_up_for_bytes(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=3, retention={"delta_bytes": 1})
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    coordinator["north"].contribute()
    coordinator.aggregation.expire(coordinator.state)
    refs = [
        [entry.contribution.blobs["delta"] for entry in record.contributions.values()]
        for record in coordinator.run.rounds
    ]
    assert [[coordinator.blobs.contains(ref) for ref in of_round] for of_round in refs] == [[True] * 3, [True]]


def test_a_delta_that_a_newer_round_names_too_is_kept(coordinator: Coordinator) -> None:
    same = delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=3, scale=0.01))
    coordinator.open_round(rounds=3, retention={"delta_rounds": 2})
    for _ in range(2):
        for participant in coordinator.participants.values():
            participant.contribute(same)
        coordinator.advance()
    keep, given_up = kept_roots(coordinator.state)
    root = coordinator.run.rounds[0].contributions["north"].contribution.blobs["delta"].root
    assert root in keep
    assert root not in given_up


def test_a_blob_that_no_statement_names_is_deleted_after_its_time_and_not_before(coordinator: Coordinator) -> None:
    coordinator.open_round()
    fresh, old = (put_blob(coordinator.blobs, content) for content in (b"fresh", b"old"))
    age(coordinator, old)
    coordinator.aggregation.expire(coordinator.state)
    assert (coordinator.blobs.contains(fresh), coordinator.blobs.contains(old)) == (True, False)
    for content in (BASE, TOKENIZER):
        ref = put_blob(coordinator.blobs, content)
        age(coordinator, ref)
        coordinator.aggregation.expire(coordinator.state)
        assert coordinator.blobs.contains(ref), "the plan names it"


def age(coordinator: Coordinator, ref: Any) -> None:
    then = time.time() - UNREFERENCED_SECONDS - 60
    os.utime(coordinator.blobs.path(ref), (then, then))


def test_a_missing_input_is_named(coordinator: Coordinator) -> None:
    current = coordinator.open_round(rounds=1)
    coordinator.blobs.delete(current.opened.inputs.model)
    with pytest.raises(MissingBlob, match="is not in"):
        coordinator.aggregation.aggregate(coordinator.run, current, ())
