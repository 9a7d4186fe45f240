"""Runs extended and rolled back by their operator."""

from __future__ import annotations

from datetime import timedelta

import pytest

from common.clock import parse_rfc3339
from common.errors import MissingBlob, UsageError
from common.ledger.rules import admit, start
from common.verify.lineage import check_lineage
from common.verify.report import Outcome
from common.verify.rounds import check_rounds
from coordinator.commands.verifying import verified
from coordinator.ports import Steering
from coordinator.rounds.phases import deadline
from tests.support.coordinators import Coordinator

MOMENTUM = {"type": "momentum", "learning_rate": "1", "momentum": "0.9"}


def roll_back(coordinator: Coordinator, to_round: int) -> None:
    coordinator.desk.control_run("tiny", "rollback", "operator", Steering(to_round=to_round))


def extend(coordinator: Coordinator, **steering: int) -> None:
    coordinator.desk.control_run("tiny", "extend", "operator", Steering(**steering))


def play_rounds(coordinator: Coordinator, count: int) -> None:
    """So many rounds, and the next one opened."""
    for _ in range(count):
        for participant in coordinator.participants.values():
            participant.act()
        coordinator.advance()


def outcomes(coordinator: Coordinator) -> list[tuple[int, str, str, bool]]:
    """Number, task, reason of each closed round, and whether it was rolled back."""
    return [
        (record.number, record.opened.task, record.closed.reason, record.rolled_back)
        for record in coordinator.run.rounds
        if record.closed is not None
    ]


def test_a_run_goes_on_from_what_an_earlier_round_left(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=4, server_optimizer=MOMENTUM)
    play_rounds(coordinator, 3)
    left = coordinator.run.rounds[0].closed
    assert left is not None
    roll_back(coordinator, 1)
    assert (coordinator.run.model, coordinator.run.server_state) == (left.outputs.model, left.outputs.server_state)
    run = coordinator.play()
    done = "all-contributed"
    assert outcomes(coordinator) == [
        (1, "train", done, False),
        (2, "train", done, True),
        (3, "train", done, True),
        (4, "train", "rolled-back", True),
        (5, "train", done, False),
        (6, "train", done, False),
        (7, "train", done, False),
        (8, "evaluate", done, False),
    ]
    assert run.rounds[4].opened.inputs.model == left.outputs.model
    assert run.ended is not None
    assert (run.ended.reason, run.ended.model) == ("rounds-done", run.model)


def test_the_rolled_back_rounds_are_verified_like_the_others(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2, server_optimizer=MOMENTUM)
    play_rounds(coordinator, 1)
    roll_back(coordinator, 0)
    run = coordinator.play()
    rounds, lineage = check_rounds(run, coordinator.blobs, lambda *_: None), check_lineage(run)
    assert (rounds.outcome, lineage.outcome) == (Outcome.VERIFIED, Outcome.VERIFIED)
    assert rounds.examined == "3 of 3 recomputed here, equal in every bit"
    assert lineage.examined.endswith("; rolled back: 1, 2")


def test_whoever_reads_a_steered_ledger_comes_to_the_coordinators_state(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    extend(coordinator, deadline_seconds=100_000)
    play_rounds(coordinator, 2)
    roll_back(coordinator, 1)
    extend(coordinator, rounds=3)
    coordinator.play()
    genesis, *rest = coordinator.envelopes()
    state = start(genesis).state
    for envelope in rest:
        state = admit(state, envelope).state
    coordinator.restart()
    assert state == coordinator.state == coordinator["north"].follow()


def test_the_tables_of_a_steered_coordinator_are_verified(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    play_rounds(coordinator, 1)
    roll_back(coordinator, 0)
    coordinator.play()
    report = verified(coordinator.layout)
    failed = [each.text for check in report.checks for each in check.findings if each.outcome is Outcome.FAILED]
    assert failed == []


def test_an_evaluation_is_taken_back_and_training_goes_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1)
    play_rounds(coordinator, 1)
    assert coordinator.run.rounds[-1].opened.task == "evaluate"
    with pytest.raises(UsageError, match=r"after its evaluation, round 2, was opened\."):
        extend(coordinator, rounds=2)
    roll_back(coordinator, 1)
    extend(coordinator, rounds=2)
    coordinator.play()
    assert [task for _, task, _, taken_back in outcomes(coordinator) if not taken_back] == [
        "train",
        "train",
        "evaluate",
    ]


def test_a_paused_run_that_is_rolled_back_stays_paused(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=3)
    play_rounds(coordinator, 1)
    coordinator.desk.control_run("tiny", "pause", "operator")
    roll_back(coordinator, 0)
    coordinator.advance()
    assert coordinator.run.open_round is None
    coordinator.desk.control_run("tiny", "resume", "operator")
    coordinator.advance()
    assert coordinator.run.open_round is not None


def test_a_kill_between_the_two_statements_of_a_roll_back_leaves_a_run_that_goes_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    play_rounds(coordinator, 1)
    coordinator.engine.abandon(coordinator.engine.state_of(coordinator.run), "rolled-back")
    coordinator.restart()
    coordinator.advance()
    roll_back(coordinator, 0)
    assert coordinator.play().committed()[0].number == 4


@pytest.mark.parametrize(
    ("to_round", "message"),
    [
        (5, r"rolled back to round 5, which is none of its rounds"),
        (2, r"rolled back to round 2, and no round came after it\."),
        (1, r"rolled back to round 1, which is none of its rounds, or was rolled back itself\."),
    ],
)
def test_nobody_goes_back_to_what_is_no_round_of_the_model(
    coordinator: Coordinator, to_round: int, message: str
) -> None:
    coordinator.open_round(rounds=3)
    play_rounds(coordinator, 1)
    if to_round == 1:
        roll_back(coordinator, 0)
        coordinator.advance()
    size = coordinator.state.size
    with pytest.raises(UsageError, match=message):
        roll_back(coordinator, to_round)
    assert coordinator.state.size == size


def test_a_model_that_retention_gave_up_is_no_place_to_go_back_to(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=5, retention={"delta_rounds": 1})
    play_rounds(coordinator, 3)
    gone = coordinator.run.rounds[0].closed
    assert gone is not None
    coordinator.blobs.delete(gone.outputs.model)
    with pytest.raises(MissingBlob, match=r"The model that round 1 of .* left, blake3:.*, is not kept any more\."):
        roll_back(coordinator, 1)
    assert coordinator.run.open_round is not None, "nothing was abandoned for it"


def test_what_a_roll_back_goes_back_to_is_kept_from_then_on(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=5, retention={"delta_rounds": 1}, server_optimizer=MOMENTUM)
    play_rounds(coordinator, 2)
    roll_back(coordinator, 1)
    assert coordinator.run.server_state is not None
    assert coordinator.blobs.contains(coordinator.run.model)
    assert coordinator.blobs.contains(coordinator.run.server_state)
    coordinator.play()


def test_more_rounds_than_planned_are_trained(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1)
    extend(coordinator, rounds=3)
    assert coordinator.views.runs()[0].rounds_planned == 3
    coordinator.play()
    assert [task for _, task, _, _ in outcomes(coordinator)] == ["train"] * 3 + ["evaluate"]


def test_a_round_takes_contributions_until_its_new_deadline(coordinator: Coordinator) -> None:
    record = coordinator.open_round()
    seconds = coordinator.run.statement.plan.deadline_seconds
    until = deadline(record)
    extend(coordinator, deadline_seconds=2 * seconds)
    coordinator.clock.advance(seconds=seconds)
    coordinator.advance()
    current = coordinator.run.open_round
    assert current is not None
    assert parse_rfc3339(current.deadline) == until + timedelta(seconds=seconds)
    for participant in coordinator.participants.values():
        participant.act()
    coordinator.advance()
    assert outcomes(coordinator)[0][2] == "all-contributed"


def test_a_deadline_that_is_no_later_is_refused(coordinator: Coordinator) -> None:
    coordinator.open_round()
    with pytest.raises(UsageError, match=r"Round 1 of .* has until .*, 1 s from now is no later\."):
        extend(coordinator, deadline_seconds=1)
    with pytest.raises(UsageError, match=r"is extended to 1 training rounds, it has \d+ already\."):
        extend(coordinator, rounds=1)


def test_a_rolled_back_round_says_so_in_its_view(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=3)
    play_rounds(coordinator, 1)
    assert [view.outcome for view in coordinator.views.runs()[0].rounds] == ["committed", "open"]
    roll_back(coordinator, 0)
    assert [view.outcome for view in coordinator.views.runs()[0].rounds] == ["rolled-back", "rolled-back"]
