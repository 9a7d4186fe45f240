"""Runs with SCAFFOLD at the coordinator: what is taken, what rounds leave, who reads it, and that it is verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import tensors
from common.errors import DeltaTooLong, MalformedStatement, NonFiniteDelta, NotAuthorised, TooManyRequests
from common.evidence.select import Holdings, select
from common.ledger.acceptances import accepted_before
from common.ledger.downlink import contribution_bytes, server_state_bytes
from common.ledger.state import RunRecord
from common.plan.explain import explain
from common.statements.kinds import RoundOutputs
from common.verify.report import Outcome
from common.verify.rounds import check_rounds
from coordinator.access import MAX_BLOBS_A_ROUND
from coordinator.aggregation import kept_roots
from coordinator.commands.forecast import disk_of, traffic_of
from coordinator.ports import UploadPurpose
from coordinator.rounds.ports import Step
from tests.support.blobs import delta_bytes, random_arrays, read_blob
from tests.support.coordinators import Coordinator, Crash, CrashAt
from tests.support.participants import MANIFEST
from tests.support.server_states import slots_of, state_blob
from tests.support.statements import a_blob_ref
from tests.unit.coordinator.test_downlink import Without, by_the_page, can_read, outputs_of

LOCAL = {
    "steps": 2,
    "batch_size": 2,
    "sequence_length": 16,
    "optimizer": {"type": "sgd"},
    "correction": {"type": "scaffold", "max_control_l2": "50"},
}
ELEMENTS = tensors.trainable_elements(MANIFEST)


def played(coordinator: Coordinator, **plan: Any) -> RunRecord:
    coordinator.start_run(**{"rounds": 3, "local": LOCAL} | plan)
    return coordinator.play()


def opened(coordinator: Coordinator, **plan: Any) -> None:
    coordinator.open_round(**{"rounds": 3, "local": LOCAL} | plan)


def a_control(**changes: float) -> bytes:
    arrays = random_arrays(MANIFEST, seed=1, scale=0.01)
    for name, value in changes.items():
        arrays[name].reshape(-1)[-1] = value
    return delta_bytes(MANIFEST, arrays)


def control_of(coordinator: Coordinator, outputs: RoundOutputs) -> np.ndarray[Any, Any]:
    assert outputs.server_state is not None
    scalars, slots = slots_of(read_blob(coordinator.blobs, outputs.server_state), ELEMENTS)
    assert (scalars, list(slots)) == ([], ["control"])
    return slots["control"]


@pytest.mark.parametrize("downlink", [None, {"type": "float32"}])
def test_every_committed_round_is_the_documented_one(coordinator: Coordinator, downlink: dict[str, str] | None) -> None:
    run = played(coordinator, downlink=downlink, server_optimizer={"type": "sgd", "learning_rate": "0.7"})
    assert len(run.committed("train")) == 3
    for record in run.committed("train"):
        expected, outputs = by_the_page(coordinator, record), outputs_of(run, record.number)
        assert read_blob(coordinator.blobs, outputs.model) == expected.model
        assert outputs.server_state is not None
        assert read_blob(coordinator.blobs, outputs.server_state) == expected.state
        assert outputs.server_state.size == server_state_bytes(run.statement)
        assert set(record.contributions["north"].contribution.blobs) == {"delta", "control"}
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert (check.examined, check.findings) == ("3 of 3 recomputed here, equal in every bit", ())


def test_it_is_the_mean_over_all_who_accepted_of_what_those_who_contributed_changed(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=1, cohort={"size": 2}, quorum=2)
    record = run.rounds[0]
    assert (accepted_before(run, record), len(record.contributions)) == (3, 2)
    changed = np.zeros(ELEMENTS, np.float64)
    for entry in record.contributions.values():
        content = read_blob(coordinator.blobs, entry.contribution.blobs["control"])
        changed += np.frombuffer(content, "<f4", offset=len(content) - 4 * ELEMENTS)
    np.testing.assert_allclose(control_of(coordinator, outputs_of(run, 1)), changed / 3, rtol=1e-5)
    check = check_rounds(run, coordinator.blobs, lambda *_: None)
    assert (check.examined, check.findings) == ("1 of 1 recomputed here, equal in every bit", ())


def test_an_abandoned_round_and_an_evaluation_hand_it_on(coordinator: Coordinator) -> None:
    opened(coordinator, rounds=1)
    coordinator.clock.advance(seconds=4000)  # round 1: nobody
    coordinator.advance()
    run = coordinator.play()
    states = [outputs_of(run, number).server_state for number in (1, 2, 3)]
    assert states[0] is None
    assert states[1] is not None
    assert states[2] == states[1]


@pytest.mark.parametrize("killed_at", [Step.ROUND_OPENED, Step.ROUND_SEALED, Step.MODEL_WRITTEN, Step.ROUND_CLOSED])
def test_a_kill_and_a_restart_lose_nothing(tmp_path: Path, killed_at: Step) -> None:
    def run_through(folder: str, steps: CrashAt | None) -> list[RoundOutputs]:
        coordinator = Coordinator(tmp_path / folder, steps=steps)
        try:
            if steps is None:
                played(coordinator)
            else:
                with pytest.raises(Crash):
                    played(coordinator)
                coordinator.restart()
                coordinator.play()
            return [outputs_of(coordinator.run, number) for number in (1, 2, 3, 4)]
        finally:
            coordinator.close()

    assert run_through("killed", CrashAt(killed_at, 2)) == run_through("undisturbed", None)


def test_the_cohort_of_a_round_reads_what_it_starts_from_and_nobody_else(coordinator: Coordinator) -> None:
    opened(coordinator, cohort={"size": 2}, quorum=2)
    for name in coordinator.run.rounds[0].opened.cohort:
        coordinator[name].contribute()
    coordinator.advance()
    second = coordinator.run.rounds[1].opened
    assert second.inputs.server_state is not None
    coordinator.enrol("west")
    readers = [name for name in coordinator.participants if can_read(coordinator, name, second.inputs.server_state)]
    assert sorted(readers) == sorted(second.cohort)
    assert len(readers) == 2
    operator = coordinator.state.member("operator")
    assert operator is not None
    with pytest.raises(NotAuthorised, match="No statement gives operator the blob"):
        coordinator.access.check_read(operator, second.inputs.server_state)
    control = coordinator.run.rounds[0].contributions[coordinator.run.rounds[0].opened.cohort[0]]
    ref, owner = control.contribution.blobs["control"], control.contribution.institution
    assert [name for name in coordinator.participants if can_read(coordinator, name, ref)] == [owner]


REFUSED = {
    "a control that is too long": (
        a_control(bias=51),
        DeltaTooLong,
        r"The control's L2 norm is 51, the plan's max_control_l2 is 50\.",
    ),
    "a NaN": (a_control(embedding=np.nan), NonFiniteDelta, r"The control holds nan in tensor 'embedding' at 31\."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_control_may_hold(coordinator: Coordinator, name: str) -> None:
    content, error, words = REFUSED[name]
    opened(coordinator)
    north = coordinator["north"]
    delta, control = north.send(north.delta()), north.send(content)
    for _ in range(2):  # at arrival, and remembered
        with pytest.raises(error, match=words):
            north.contribute(blobs={"delta": delta, "control": control})
    coordinator.restart()
    north = coordinator["north"]
    with pytest.raises(error, match=words):  # read in full
        north.contribute(blobs={"delta": delta, "control": control})


def test_a_control_too_long_is_no_delta_too_long(coordinator: Coordinator) -> None:
    opened(coordinator)
    north = coordinator["north"]
    long = north.send(a_control(bias=51))
    with pytest.raises(DeltaTooLong, match="max_control_l2"):
        north.contribute(blobs={"delta": long, "control": long})
    north.contribute(blobs={"delta": long, "control": north.send(north.control())})


def test_a_contribution_has_both_blobs(coordinator: Coordinator) -> None:
    opened(coordinator)
    north = coordinator["north"]
    ref = north.send(north.delta())
    with pytest.raises(MalformedStatement, match=r"holds blobs \['delta'\], expected \['control', 'delta'\]\."):
        north.contribute(blobs={"delta": ref})


def test_twice_as_many_blobs_a_round_and_no_more(coordinator: Coordinator) -> None:
    opened(coordinator)
    north, purpose = coordinator["north"].member, UploadPurpose(round_opened=coordinator.run.rounds[0].place.digest)
    size = len(a_control())
    refs = [a_blob_ref(f"blob {number}", size=size) for number in range(2 * MAX_BLOBS_A_ROUND + 1)]
    for ref in refs[:-1]:
        coordinator.access.check_write(north, ref, purpose)
    with pytest.raises(TooManyRequests, match=r"north began 8 different blobs for one round already\."):
        coordinator.access.check_write(north, refs[-1], purpose)


def test_controls_and_states_go_with_the_deltas(coordinator: Coordinator) -> None:
    run = played(coordinator, retention={"delta_rounds": 1})
    kept, given_up = kept_roots(coordinator.state)
    for record in run.committed("train"):
        for entry in record.contributions.values():
            assert entry.contribution.blobs["control"].root in given_up
    last = outputs_of(run, 3).server_state
    assert last is not None
    assert last.root in kept, "the evaluation, the newest round, started from it"
    assert run.statement.plan.retention.delta_rounds == 1


def test_without_a_control_a_round_cannot_be_recomputed(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=1)
    ref = run.rounds[0].contributions["north"].contribution.blobs["control"]
    check = check_rounds(run, Without(coordinator.blobs, {ref}), lambda *_: None)
    (finding,) = check.findings
    assert finding.outcome == Outcome.GAPS
    assert finding.text == f"Round 1 of {run.run} was not recomputed: the control of north not held here."


def test_evidence_holds_controls_beside_deltas(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=2)
    found = select(Holdings(coordinator.envelopes(), blobs=coordinator.blobs))
    roots = {ref.root for ref in found.contents.blobs}
    for record in run.committed("train"):
        for entry in record.contributions.values():
            assert {ref.root for ref in entry.contribution.blobs.values()} <= roots
    assert found.deltas == {"east": 2, "north": 2, "south": 2}


def test_the_forecast_counts_controls_and_the_control_variate(coordinator: Coordinator) -> None:
    run = played(coordinator, rounds=1)
    plain = run.statement.plan.model_dump(mode="json")
    plain["local"]["correction"] = {"type": "none"}
    without = run.statement.model_copy(update={"plan": type(run.statement.plan).model_validate(plain)})
    size, state = len(a_control()), len(state_blob({"control": np.zeros(ELEMENTS, np.float32)}, 65_536))
    assert contribution_bytes(run.statement) == 2 * contribution_bytes(without) == 2 * size
    more, less = traffic_of(run.statement, 3), traffic_of(without, 3)
    assert (more.round_up - less.round_up, more.round_down - less.round_down) == (size, state)
    assert disk_of(run.statement, 3) - disk_of(without, 3) == 3 * size + state


def test_explain_says_what_is_corrected_and_sent(coordinator: Coordinator) -> None:
    opened(coordinator)
    prose = "\n".join(explain(coordinator.run.statement.plan).prose)
    assert "each step turned by how the institutions' mean gradient differs from its own." in prose
    assert "by how much its own mean gradient changed (an L2 norm above 50 is refused), and signs" in prose
    assert "moments" not in prose, "SGD without momentum has none"
