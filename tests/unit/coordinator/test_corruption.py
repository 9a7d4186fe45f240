"""A blob that changes on the coordinator's disk while a round is open: never a wrong model, and everybody is told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.blobs.reference import BlobRef
from common.ledger.state import RoundRecord
from tests.support.coordinators import NAMES, Coordinator


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def ref_of(record: RoundRecord, which: str) -> BlobRef:
    if which == "delta":
        return record.contributions["north"].contribution.blobs["delta"]
    inputs = record.opened.inputs
    found = inputs.model if which == "model" else inputs.server_state
    assert found is not None
    return found


@pytest.mark.parametrize("which", ["delta", "model", "server_state"])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_flipped_bit_in_what_a_round_is_made_of_leaves_the_model_as_it_was(
    coordinator: Coordinator, which: str, restarts: bool
) -> None:
    coordinator.open_round(rounds=3, server_optimizer={"type": "momentum"})
    contribute_all(coordinator)
    coordinator.advance()  # round 1 is committed: from here on there is a server_state
    before = coordinator.run.model
    content = coordinator.blobs.path(before).read_bytes()
    coordinator.advance()
    number = coordinator.run.rounds[-1].number
    assert number == 2
    for name in NAMES[:2]:
        coordinator[name].contribute()
    damaged = ref_of(coordinator.run.rounds[-1], which)
    flip(coordinator.blobs.path(damaged), -1)
    if restarts:
        coordinator.restart()
    coordinator[NAMES[2]].contribute()
    coordinator.advance()
    closed = coordinator.run.rounds[number - 1].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("abandoned", "corrupt-chunk")
    assert closed.outputs.model == before
    if which != "model":
        assert coordinator.blobs.path(before).read_bytes() == content


def test_the_round_after_a_damaged_delta_is_committed(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    for name in NAMES[:2]:
        coordinator[name].contribute()
    flip(coordinator.blobs.path(ref_of(coordinator.run.rounds[-1], "delta")), -1)
    coordinator[NAMES[2]].contribute()
    coordinator.advance()
    record = coordinator.play()
    outcomes = [
        each.closed.outcome for each in record.rounds if each.closed is not None and each.opened.task == "train"
    ]
    assert outcomes == ["abandoned", "committed", "committed"]


def contribute_all(coordinator: Coordinator) -> None:
    for name in NAMES:
        coordinator[name].contribute()
