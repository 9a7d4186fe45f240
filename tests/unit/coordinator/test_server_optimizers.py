"""Runs with server optimizers at the coordinator: the state goes from round to round, through crashes, and is verified."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import tensors
from common.ledger.downlink import server_state_bytes
from common.ledger.state import RunRecord
from common.plan.explain import explain
from common.reduce import registry
from common.statements.kinds import RoundOutputs
from common.verify.report import Outcome
from common.verify.rounds import check_rounds
from coordinator.commands.forecast import disk_of
from coordinator.rounds.ports import Step
from tests.support.blobs import read_blob
from tests.support.coordinators import Coordinator, Crash, CrashAt, InlineEngine
from tests.support.participants import MANIFEST
from tests.support.server_states import slots_of
from tests.unit.coordinator.test_downlink import Lying, Without, by_the_page, can_read, outputs_of

STATEFUL = [name for name in registry.SERVER_OPTIMIZERS if name != "sgd"]


def played(coordinator: Coordinator, optimizer: str, **plan: Any) -> RunRecord:
    coordinator.start_run(**{"rounds": 3, "server_optimizer": {"type": optimizer}} | plan)
    return coordinator.play()


@pytest.mark.parametrize("downlink", [None, {"type": "int8"}])
@pytest.mark.parametrize("optimizer", registry.SERVER_OPTIMIZERS)
def test_every_committed_round_is_the_documented_one(
    coordinator: Coordinator, optimizer: str, downlink: dict[str, str] | None
) -> None:
    run = played(coordinator, optimizer, downlink=downlink)
    assert len(run.committed("train")) == 3
    for record in run.committed("train"):
        expected, outputs = by_the_page(coordinator, record), outputs_of(run, record.number)
        assert read_blob(coordinator.blobs, outputs.model) == expected.model
        assert (outputs.applied_delta is None) == (downlink is None)
        assert (outputs.server_state is None) == (expected.state is None) == (optimizer == "sgd" and downlink is None)
        kept = outputs.server_state is not None and coordinator.blobs.contains(outputs.server_state)
        if outputs.server_state is not None and kept:
            assert read_blob(coordinator.blobs, outputs.server_state) == expected.state
            assert outputs.server_state.size == server_state_bytes(run.statement)
    assert [record.opened.inputs.server_state for record in run.rounds] == [
        None,
        *(outputs_of(run, number).server_state for number in (1, 2, 3)),
    ]
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert (check.examined, check.findings) == ("3 of 3 recomputed here, equal in every bit", ())


@pytest.mark.parametrize("killed_at", [Step.ROUND_OPENED, Step.ROUND_SEALED, Step.MODEL_WRITTEN, Step.ROUND_CLOSED])
@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_a_kill_and_a_restart_lose_no_state(tmp_path: Path, optimizer: str, killed_at: Step) -> None:
    def run_through(folder: str, steps: CrashAt | None) -> list[RoundOutputs]:
        coordinator = Coordinator(tmp_path / folder, steps=steps)
        try:
            if steps is None:
                played(coordinator, optimizer)
            else:
                with pytest.raises(Crash):
                    played(coordinator, optimizer)
                coordinator.restart()
                coordinator.play()
            return [outputs_of(coordinator.run, number) for number in (1, 2, 3, 4)]
        finally:
            coordinator.close()

    undisturbed = run_through("undisturbed", None)
    assert run_through("killed", CrashAt(killed_at, 2)) == undisturbed
    assert len({outputs.server_state for outputs in undisturbed}) == 3, "each training round leaves another one"


def test_an_abandoned_round_counts_for_nothing(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2, server_optimizer={"type": "adam"})
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    coordinator.clock.advance(seconds=4000)  # round 2: nobody
    coordinator.advance()
    run = coordinator.play()
    first, second, third = (outputs_of(run, number) for number in (1, 2, 3))
    assert second == first
    assert third.server_state is not None
    powers, _ = slots_of(read_blob(coordinator.blobs, third.server_state), tensors.trainable_elements(MANIFEST))
    assert powers == [0.9 * 0.9, 0.99 * 0.99]


def test_without_the_state_a_round_cannot_be_recomputed_and_with_another_one_it_is_found(
    coordinator: Coordinator,
) -> None:
    ports = replace(coordinator.engine._ports, aggregator=Lying(coordinator, "server_state"))
    coordinator.engine = InlineEngine(ports)
    run = played(coordinator, "yogi", rounds=2)
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert {finding.outcome for finding in check.findings} == {Outcome.FAILED}
    assert "was committed with another server_state than its contributions give" in check.findings[0].text
    state = run.rounds[1].opened.inputs.server_state
    assert state is not None
    check = check_rounds(run, Without(coordinator.blobs, {state}), lambda *_: None)
    assert "Round 2 of " in check.findings[-1].text
    assert "was not recomputed: the server_state not held here" in check.findings[-1].text


def test_only_who_may_recompute_reads_the_state_and_old_ones_go_with_the_deltas(coordinator: Coordinator) -> None:
    section, retention = {"type": "momentum"}, {"delta_rounds": 1}
    coordinator.open_round(rounds=3, server_optimizer=section, delta_audience=["north"], retention=retention)
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    state = outputs_of(coordinator.run, 1).server_state
    assert state is not None
    assert [name for name in coordinator.participants if can_read(coordinator, name, state)] == ["north"]
    run = coordinator.play()
    coordinator.aggregation.expire(coordinator.state)
    there = []
    for number in (1, 2, 3):
        left = outputs_of(run, number).server_state
        assert left is not None
        there.append(coordinator.blobs.contains(left))
    assert there == [False, False, True], "the evaluation, the newest round, started from the last"


def test_the_forecast_counts_the_states(coordinator: Coordinator) -> None:
    def forecast(optimizer: str) -> int:
        draft = replace_optimizer(coordinator, optimizer)
        return disk_of(draft, 3)

    def replace_optimizer(coordinator: Coordinator, optimizer: str) -> Any:
        statement = coordinator.run.statement
        changed = statement.plan.model_dump(mode="json") | {"server_optimizer": {"type": optimizer}}
        return statement.model_copy(update={"plan": type(statement.plan).model_validate(changed)})

    run = played(coordinator, "sgd", rounds=3)
    plain = forecast("sgd")
    for optimizer in STATEFUL:
        size = server_state_bytes(replace_optimizer(coordinator, optimizer))
        assert size is not None
        assert forecast(optimizer) == plain + run.statement.plan.rounds * size


@pytest.mark.parametrize("optimizer", registry.SERVER_OPTIMIZERS)
def test_explain_says_what_is_kept(coordinator: Coordinator, optimizer: str) -> None:
    coordinator.start_run(server_optimizer={"type": optimizer})
    plan = coordinator.run.statement.plan
    (text,) = [line for line in explain(plan).prose if "On commit" in line]
    assert all(slot in text for slot in plan.slots)
    assert (optimizer in text) == bool(plan.slots)
    assert all(row.meaning for row in explain(plan).rows if row.section == "server_optimizer")
