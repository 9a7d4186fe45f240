"""The engine: a whole run, and each way in which a round or run can end."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import LLMasOSError, OperationError, RoundNotOpen, StorageFailure
from common.ledger.rules import admit, start
from common.statements.kinds import RoundOutputs
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import Phase, RunState
from tests.support.coordinators import LEASE_SECONDS, Coordinator


def outcomes(coordinator: Coordinator) -> list[tuple[str, str, str]]:
    """Task, outcome and reason of each closed round."""
    return [
        (record.opened.task, record.closed.outcome, record.closed.reason)
        for record in coordinator.run.rounds
        if record.closed is not None
    ]


def end_reason(coordinator: Coordinator) -> str:
    assert coordinator.run.ended is not None
    return coordinator.run.ended.reason


def pass_deadline(coordinator: Coordinator) -> None:
    coordinator.clock.advance(seconds=coordinator.run.statement.plan.deadline_seconds)
    coordinator.advance()


class EchoEngine(Engine):
    """Says which transition a phase leads to."""

    def gather_answers(self, state: RunState) -> RunState:
        raise Took("gather_answers")

    def collect(self, state: RunState) -> RunState:
        raise Took("collect")

    def commit(self, state: RunState) -> RunState:
        raise Took("commit")

    def abandon(self, state: RunState, reason: str) -> RunState:
        raise Took(f"abandon {reason}")

    def go_on(self, state: RunState) -> RunState:
        raise Took("go_on")


class Took(Exception):
    pass


class Standing:
    """A state that stands in a phase."""

    def __init__(self, phase: Phase, has_quorum: bool) -> None:
        self.phase, self.has_quorum = phase, has_quorum


BRANCHES = {
    (Phase.ANSWERING, False): "gather_answers",
    (Phase.COLLECTING, False): "collect",
    (Phase.SEALED, True): "commit",
    (Phase.SEALED, False): "abandon no-quorum",
    (Phase.BETWEEN, False): "go_on",
    (Phase.PAUSED, False): None,
    (Phase.ENDED, False): None,
}


def test_every_phase_has_a_branch() -> None:
    assert {phase for phase, _ in BRANCHES} == set(Phase)


@pytest.mark.parametrize(("phase", "has_quorum"), list(BRANCHES))
def test_a_phase_leads_to_its_transition(coordinator: Coordinator, phase: Phase, has_quorum: bool) -> None:
    engine, state = EchoEngine(coordinator.engine._ports), Standing(phase, has_quorum)
    wanted = BRANCHES[phase, has_quorum]
    if wanted is None:
        assert engine.advance(state) is state  # type: ignore[arg-type]
    else:
        with pytest.raises(Took, match=f"^{wanted}$"):
            engine.advance(state)  # type: ignore[arg-type]


def test_a_run_trains_its_rounds_measures_the_last_model_and_ends(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=2)
    run = coordinator.play()
    assert outcomes(coordinator) == [
        ("train", "committed", "all-contributed"),
        ("train", "committed", "all-contributed"),
        ("evaluate", "committed", "all-contributed"),
    ]
    assert end_reason(coordinator) == "rounds-done"
    assert run.ended is not None
    assert run.ended.model == run.model != run.statement.initial.model
    models = [record.opened.inputs.model for record in run.rounds]
    assert len({model.root for model in models}) == 3
    assert coordinator.blobs.contains(run.model)


def test_whoever_reads_the_ledger_comes_to_the_coordinators_state(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator.play()
    genesis, *rest = coordinator.envelopes()
    state = start(genesis).state
    for envelope in rest:
        state = admit(state, envelope).state
    assert state == coordinator.state == coordinator["north"].follow()


def test_advancing_again_changes_nothing(coordinator: Coordinator) -> None:
    coordinator.start_run()
    for _ in range(6):
        coordinator.advance()
        before = coordinator.state
        coordinator.advance()
        assert coordinator.state is before
        for participant in coordinator.participants.values():
            participant.act()


def test_the_first_round_waits_for_every_answer(coordinator: Coordinator) -> None:
    coordinator.start_run(quorum=2)
    for name in ("east", "north"):
        coordinator[name].answer()
    coordinator.advance()
    assert coordinator.run.rounds == ()
    coordinator["south"].answer(accept=False, reasons=("budget",))
    coordinator.advance()
    assert coordinator["east"].round.opened.cohort == ("east", "north")


def test_the_first_round_opens_without_the_silent_once_the_time_to_answer_passed(coordinator: Coordinator) -> None:
    coordinator.start_run(quorum=2, deadline_seconds=100)
    for name in ("east", "north"):
        coordinator[name].answer()
    coordinator.clock.advance(seconds=99.9)
    coordinator.advance()
    assert coordinator.run.rounds == ()
    coordinator.clock.advance(seconds=0.1)
    coordinator.advance()
    assert coordinator["east"].round.opened.cohort == ("east", "north")


def test_too_few_acceptances_end_the_run_without_a_round(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator["east"].answer()
    for name in ("north", "south"):
        coordinator[name].answer(accept=False, reasons=("budget",))
    coordinator.advance()
    assert end_reason(coordinator) == "too-few-acceptances"
    assert coordinator.run.rounds == ()


def test_without_quorum_at_the_deadline_the_round_is_abandoned_and_its_number_used_up(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=3)
    for name in ("east", "north"):
        coordinator[name].contribute()
    pass_deadline(coordinator)
    first, second = coordinator.run.rounds
    assert outcomes(coordinator) == [("train", "abandoned", "no-quorum")]
    assert first.closed is not None
    assert [entry.status for entry in first.closed.inputs] == ["unused", "unused"]
    assert second.number == 2
    assert second.opened.inputs.model == first.opened.inputs.model == coordinator.run.model


def test_three_abandoned_rounds_in_a_row_end_the_run(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=9)
    for _ in range(3):
        pass_deadline(coordinator)
    assert outcomes(coordinator) == [("train", "abandoned", "no-quorum")] * 3
    assert end_reason(coordinator) == "too-many-abandoned-rounds"
    assert coordinator.run.model == coordinator.run.statement.initial.model


def test_abandoned_rounds_do_not_count_as_rounds_of_the_plan(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    pass_deadline(coordinator)
    coordinator.play()
    assert [outcome for _, outcome, _ in outcomes(coordinator)] == ["abandoned"] + ["committed"] * 3
    assert [record.number for record in coordinator.run.rounds] == [1, 2, 3, 4]


def test_a_deadline_seals_with_those_who_are_in(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2)
    for name in ("east", "south"):
        coordinator[name].contribute()
    coordinator.advance()
    assert coordinator.run.open_round is not None, "north has time"
    pass_deadline(coordinator)
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("committed", "deadline-passed")
    assert [(entry.institution, entry.status) for entry in closed.inputs] == [("east", "used"), ("south", "used")]


def test_with_quorum_a_round_does_not_wait_for_a_lapsed_lease(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=2)
    for name in ("east", "south"):
        coordinator[name].contribute()
    coordinator.clock.advance(seconds=LEASE_SECONDS)
    coordinator.advance()
    assert coordinator.run.open_round is not None
    coordinator.clock.advance(seconds=0.1)
    coordinator.advance()
    assert outcomes(coordinator) == [("train", "committed", "leases-lapsed")]


def test_below_quorum_a_round_waits_for_its_deadline_however_silent_the_others_are(coordinator: Coordinator) -> None:
    coordinator.open_round(quorum=3)
    for name in ("east", "south"):
        coordinator[name].contribute()
    coordinator.clock.advance(seconds=10 * LEASE_SECONDS)
    coordinator.advance()
    assert coordinator.run.open_round is not None


def test_an_evaluation_that_nobody_answers_ends_the_run_all_the_same(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=1)
    for name in coordinator.participants:
        coordinator[name].contribute()
    coordinator.advance()
    assert coordinator["east"].round.opened.task == "evaluate"
    pass_deadline(coordinator)
    assert outcomes(coordinator)[-1] == ("evaluate", "abandoned", "no-quorum")
    assert end_reason(coordinator) == "rounds-done"


def test_a_cohort_of_the_plans_size_is_drawn_anew_each_round(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home", names=("a", "b", "c", "d", "e"))
    try:
        coordinator.start_run(quorum=1, cohort={"size": 2}, rounds=9)
        coordinator.play()
        cohorts = [record.opened.cohort for record in coordinator.run.rounds]
        assert all(len(cohort) == 2 for cohort in cohorts)
        assert len(set(cohorts)) > 1
    finally:
        coordinator.close()


def test_with_over_selection_a_round_is_sealed_when_enough_have_contributed(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home", names=("a", "b", "c", "d", "e"))
    try:
        opened = coordinator.open_round(quorum=2, cohort={"size": 3, "over_selection": 0.5}, rounds=1)
        *quick, slow, slower = opened.opened.cohort
        assert len(quick) == 3
        for name in quick[:2]:
            coordinator[name].contribute()
        coordinator.advance()
        assert outcomes(coordinator) == []
        late = coordinator[slow].contribution(
            coordinator[slow].send(coordinator[slow].delta()), coordinator[slow].metrics()
        )
        coordinator[quick[2]].contribute()
        coordinator.advance()
        assert outcomes(coordinator) == [("train", "committed", "enough-contributed")]
        with pytest.raises(RoundNotOpen):
            coordinator[slow].submit(late, coordinator[slow].metrics())
        closed = coordinator.run.rounds[0].closed
        assert closed is not None
        assert [(entry.institution, entry.status) for entry in closed.inputs] == [(name, "used") for name in quick]
        assert coordinator.run.rounds[0].missing == (slow, slower)
        assert coordinator.refusals() == [(slow, None, "round-not-open", "signed-by")]  # only the newest round is named
    finally:
        coordinator.close()


def test_a_crash_between_the_last_wanted_contribution_and_the_seal_lets_no_other_in(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home", names=("a", "b", "c", "d"))
    try:
        opened = coordinator.open_round(quorum=2, cohort={"size": 2, "over_selection": 0.5}, rounds=1)
        first, second, third = opened.opened.cohort
        coordinator[first].contribute()
        coordinator[second].contribute()
        coordinator.restart()
        assert not coordinator.engine.accepts_contributions(coordinator.run)
        with pytest.raises(RoundNotOpen, match="the 2 contributions that its plan asks for"):
            coordinator[third].contribute()
        coordinator.advance()
        assert outcomes(coordinator) == [("train", "committed", "enough-contributed")]
    finally:
        coordinator.close()


# --- pause, resume, abort --------------------------------------------------------------------------------------------


def test_a_paused_run_ends_its_round_and_opens_no_other_until_resumed(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    coordinator.desk.control_run("tiny", "pause", "maintenance")
    for participant in coordinator.participants.values():
        participant.act()
    coordinator.advance()
    assert len(coordinator.run.rounds) == 1
    assert outcomes(coordinator) == [("train", "committed", "all-contributed")]
    assert coordinator.engine.state_of(coordinator.run).phase is Phase.PAUSED
    coordinator.restart()
    coordinator.advance()
    assert len(coordinator.run.rounds) == 1, "paused is durable"
    coordinator.desk.control_run("tiny", "resume", "")
    coordinator.play()
    assert end_reason(coordinator) == "rounds-done"


def test_a_run_that_is_paused_before_its_first_round_asks_on_when_resumed(coordinator: Coordinator) -> None:
    coordinator.start_run()
    coordinator.desk.control_run("tiny", "pause", "operator")
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.advance()
    assert coordinator.run.rounds == ()
    coordinator.desk.control_run("tiny", "resume", "operator")
    coordinator.advance()
    assert coordinator.run.open_round is not None


def test_abort_abandons_the_open_round_and_keeps_the_newest_committed_model(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=5)
    for participant in coordinator.participants.values():
        participant.act()
    coordinator.advance()
    model = coordinator.run.model
    coordinator["east"].contribute()
    coordinator.desk.control_run(coordinator.run.run, "abort", "")
    assert outcomes(coordinator)[-1] == ("train", "abandoned", "aborted")
    assert end_reason(coordinator) == "aborted"
    assert coordinator.run.ended is not None
    assert coordinator.run.ended.model == model != coordinator.run.statement.initial.model


# --- stop rules ------------------------------------------------------------------------------------------------------


def perplexities(coordinator: Coordinator, **by_name: float) -> None:
    for name, value in by_name.items():
        coordinator[name].perplexity = lambda number, value=value: value  # type: ignore[misc]


def test_the_run_ends_when_the_median_reaches_the_target(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=9, stop={"target_perplexity": 34})
    coordinator.play()  # 100, 50, 33.3
    assert [task for task, _, _ in outcomes(coordinator)] == ["train"] * 3 + ["evaluate"]
    assert end_reason(coordinator) == "target-reached"


def test_one_liar_cannot_stop_a_run(coordinator: Coordinator) -> None:
    perplexities(coordinator, east=1.01, north=50.0, south=60.0)
    coordinator.start_run(rounds=2, stop={"target_perplexity": 20})
    coordinator.play()
    assert end_reason(coordinator) == "rounds-done"


def test_a_lonely_liar_in_an_abandoned_round_cannot_stop_a_run(coordinator: Coordinator) -> None:
    perplexities(coordinator, east=1.01)
    coordinator.open_round(rounds=2, stop={"target_perplexity": 20})
    coordinator["east"].contribute()
    pass_deadline(coordinator)
    assert outcomes(coordinator) == [("train", "abandoned", "no-quorum")]
    assert coordinator["north"].round.opened.task == "train"


def test_a_run_without_improvement_ends_after_its_patience(coordinator: Coordinator) -> None:
    perplexities(coordinator, east=50.0, north=50.0, south=50.0)
    coordinator.start_run(rounds=9, stop={"patience_rounds": 2})
    coordinator.play()
    assert [task for task, _, _ in outcomes(coordinator)] == ["train"] * 3 + ["evaluate"]
    assert end_reason(coordinator) == "no-improvement"


def test_a_run_that_stays_stalled_is_said_to_be_once_a_minute(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk stalls every tick, twice a second: the log would fill what is left of it."""
    coordinator.open_round()
    for participant in coordinator.participants.values():
        participant.contribute()
    failing: LLMasOSError = StorageFailure("The disk is full.")

    def aggregate(*_: object) -> RoundOutputs:
        raise failing

    def stalled() -> list[str]:
        codes = [vars(record)["code"] for record in caplog.records if record.message == "run stalled"]
        caplog.clear()
        return codes

    with monkeypatch.context() as patched:
        patched.setattr(coordinator.aggregation, "aggregate", aggregate)
        for _ in range(5):
            coordinator.advance()
        assert stalled() == ["storage-failure"]
        coordinator.clock.advance(seconds=60)
        coordinator.advance()
        coordinator.advance()
        assert stalled() == ["storage-failure"]
        failing = OperationError("Something else.")
        coordinator.advance()
        assert stalled() == ["operation"], "another cause is news"
    coordinator.advance()
    assert stalled() == []
    assert coordinator.run.rounds[0].closed is not None
