"""States and decisions, as the pure functions that they are."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from common.ledger.state import Answered, Contributed, Place, RoundRecord, RunRecord
from common.statements.kinds import Control, Kind
from coordinator.rounds.phases import (
    LOSS_SCALE,
    MAX_ABANDONED_IN_A_ROW,
    Evaluations,
    EvaluationSums,
    NextStep,
    Pace,
    Phase,
    RunState,
    answers_suffice,
    deadline,
    eta_seconds,
    need_not_wait,
    next_step,
    seal_reason,
    stop_reason,
)
from tests.support.plans import a_plan
from tests.support.statements import (
    NAMES,
    NOW,
    RUN,
    a_contribution,
    a_plan_statement,
    a_round_closed,
    a_round_opened,
    an_answer,
)

PLACE = Place(3, "ab" * 32, Kind.PLAN)
HOUR = timedelta(hours=1)


def a_round(
    number: int, *, closed: str | None = "committed", task: str = "train", contributors: tuple[str, ...] = NAMES
) -> RoundRecord:
    given = {name: Contributed(PLACE, a_contribution(name, round=number)) for name in contributors}
    return RoundRecord(
        PLACE,
        a_round_opened("cd" * 32, round=number, task=task),
        MappingProxyType(given),
        a_round_closed({}, round=number, outcome=closed) if closed else None,
        PLACE if closed else None,
    )


def a_run(*rounds: RoundRecord, **plan: object) -> RunRecord:
    answers = {name: Answered(PLACE, an_answer(name)) for name in NAMES}
    return RunRecord(PLACE, a_plan_statement(plan=a_plan(**plan)), MappingProxyType(answers), rounds)


def measured(**by_round: tuple[float, ...]) -> Evaluations:
    """`_1=(10, 20, 30)`: three institutions' perplexities in round 1."""
    return {
        int(number[1:]): [
            EvaluationSums(f"clinic-{index}", round(math.log(value) * LOSS_SCALE * 1000), 1000)
            for index, value in enumerate(values)
        ]
        for number, values in by_round.items()
    }


ENDED = Control(action="run-ended", issued_at="2026-01-01T00:00:00.000Z", run=RUN, reason="rounds-done")


@pytest.mark.parametrize(
    ("run", "sealed", "phase"),
    [
        (a_run(), None, Phase.ANSWERING),
        (a_run(a_round(1, closed=None)), None, Phase.COLLECTING),
        (a_run(a_round(1, closed=None)), "deadline-passed", Phase.SEALED),
        (a_run(a_round(1)), None, Phase.BETWEEN),
        (replace(a_run(), paused=True), None, Phase.PAUSED),
        (replace(a_run(a_round(1)), paused=True), None, Phase.PAUSED),
        (replace(a_run(a_round(1, closed=None)), paused=True), None, Phase.COLLECTING),
        (replace(a_run(a_round(1, closed=None)), paused=True), "deadline-passed", Phase.SEALED),
        (replace(a_run(a_round(1)), ended=ENDED), None, Phase.ENDED),
        (replace(a_run(), ended=ENDED, paused=True), None, Phase.ENDED),
    ],
)
def test_a_phase_follows_from_ledger_and_seal(run: RunRecord, sealed: str | None, phase: Phase) -> None:
    assert RunState(run, sealed).phase is phase


@pytest.mark.parametrize(
    ("task", "contributors", "enough"),
    [("train", 2, False), ("train", 3, True), ("evaluate", 0, False), ("evaluate", 1, True)],
)
def test_quorum_is_the_plans_for_deltas_and_one_for_a_measurement(task: str, contributors: int, enough: bool) -> None:
    run = a_run(a_round(1, closed=None, task=task, contributors=NAMES[:contributors]))
    assert RunState(run, "deadline-passed").has_quorum is enough


def test_without_an_open_round_there_is_no_quorum() -> None:
    assert not RunState(a_run(a_round(1))).has_quorum


# --- what comes next -------------------------------------------------------------------------------------------------


def test_training_goes_on_until_the_planned_rounds_are_committed() -> None:
    assert next_step(a_run(a_round(1), rounds=2), {}) == NextStep("train")
    assert next_step(a_run(a_round(1), a_round(2, closed="abandoned"), rounds=2), {}) == NextStep("train")
    assert next_step(a_run(a_round(1), a_round(2), rounds=2), {}) == NextStep("evaluate")


def test_after_the_evaluation_the_run_ends_and_says_why_training_did() -> None:
    last = a_round(3, task="evaluate")
    assert next_step(a_run(a_round(1), a_round(2), last, rounds=2), {}) == NextStep(None, "rounds-done")
    stopped = a_run(a_round(1), a_round(2), last, rounds=9, stop={"target_perplexity": 20})
    assert next_step(stopped, measured(_2=(10, 10, 10))) == NextStep(None, "target-reached")


def test_too_many_abandoned_rounds_in_a_row_end_the_run_without_evaluation() -> None:
    abandoned = [a_round(number, closed="abandoned") for number in range(2, 2 + MAX_ABANDONED_IN_A_ROW)]
    assert next_step(a_run(a_round(1), *abandoned, rounds=9), {}) == NextStep(None, "too-many-abandoned-rounds")
    assert next_step(a_run(*abandoned[:-1], a_round(4), rounds=9), {}) == NextStep("train")


@pytest.mark.parametrize(
    ("evaluations", "reason"),
    [
        (measured(_1=(9, 20, 30)), ""),
        (measured(_1=(9, 9, 30)), "target-reached"),
        (measured(_1=(1.001, 1.001, 1.001), _2=(20, 20, 20)), ""),
        (measured(_2=(5, 20, 20)), ""),
        (measured(_2=(5, 14)), "target-reached"),
        (measured(), ""),
    ],
    ids=["one-below", "median-below", "only-the-newest-counts", "a-liar", "the-mean-of-two", "no-measurement"],
)
def test_the_target_is_reached_by_the_newest_median(evaluations: Evaluations, reason: str) -> None:
    assert stop_reason(a_run(a_round(1), a_round(2), stop={"target_perplexity": 10}), evaluations) == reason


def test_abandoned_rounds_are_no_measure() -> None:
    """A round without a quorum may hold one institution's word alone; its model is measured again."""
    run = a_run(a_round(1), a_round(2, closed="abandoned"), stop={"target_perplexity": 10, "patience_rounds": 1})
    assert stop_reason(run, measured(_1=(20, 20, 20), _2=(1.01,))) == ""
    assert stop_reason(run, measured(_1=(20, 20, 20), _2=(20, 20, 20))) == ""


@pytest.mark.parametrize(
    ("medians", "reason"),
    [
        ((50, 40, 30, 20), ""),
        ((50, 50), ""),
        ((50, 50, 50), "no-improvement"),
        ((50, 60, 49), ""),
        ((50, 40, 45, 41), "no-improvement"),
        ((50, 40, 45, 39), ""),
        ((50, 60, 55, 52), "no-improvement"),
    ],
)
def test_patience_ends_after_so_many_rounds_without_a_new_best(medians: tuple[int, ...], reason: str) -> None:
    rounds = [a_round(number + 1) for number in range(len(medians))]
    run = a_run(*rounds, rounds=99, stop={"patience_rounds": 2})
    evaluations = measured(**{f"_{number + 1}": (value,) * 3 for number, value in enumerate(medians)})
    assert stop_reason(run, evaluations) == reason


@pytest.mark.parametrize(
    ("loss_sum_fixed", "num_tokens", "perplexity"),
    [(0, 10, 1.0), (LOSS_SCALE * 20, 10, math.exp(2)), (5, 0, math.inf), (LOSS_SCALE * 10_000, 10, math.inf)],
)
def test_perplexity_is_the_exponential_of_the_mean_loss(
    loss_sum_fixed: int, num_tokens: int, perplexity: float
) -> None:
    assert EvaluationSums("north", loss_sum_fixed, num_tokens).perplexity == pytest.approx(perplexity)


# --- answers and seals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trainers", "accepting", "refusing", "late", "verdict"),
    [
        ("abc", "abc", "", False, "open"),
        ("abcd", "abc", "d", False, "open"),
        ("abcd", "abc", "", False, None),
        ("abcd", "abc", "", True, "open"),
        ("abc", "ab", "c", False, "too-few-acceptances"),
        ("ab", "ab", "", False, None),
        ("abc", "ab", "c", True, "too-few-acceptances"),
        ("abc", "", "", True, "too-few-acceptances"),
        ("abc", "", "abc", False, "too-few-acceptances"),
        ("", "", "", False, None),
    ],
)
def test_answers_open_wait_or_end(
    trainers: str, accepting: str, refusing: str, late: bool, verdict: str | None
) -> None:
    answers = {name: Answered(PLACE, an_answer(name, accept=name in accepting)) for name in accepting + refusing}
    run = RunRecord(PLACE, a_plan_statement(), MappingProxyType(answers))
    assert answers_suffice(run, tuple(trainers), NOW + HOUR if late else NOW, NOW + HOUR) == verdict


def test_an_acceptance_of_one_who_does_not_train_counts_nothing() -> None:
    answers = {name: Answered(PLACE, an_answer(name)) for name in ("a", "b", "operator")}
    run = RunRecord(PLACE, a_plan_statement(), MappingProxyType(answers))
    assert answers_suffice(run, ("a", "b"), NOW, NOW + HOUR) is None


@pytest.mark.parametrize(
    ("contributors", "lapsed", "after", "reason"),
    [
        (NAMES, (), timedelta(), "all-contributed"),
        (NAMES, (), HOUR, "all-contributed"),
        (NAMES[:2], (), HOUR - timedelta(milliseconds=1), None),
        (NAMES[:2], (), HOUR, "deadline-passed"),
        ((), (), HOUR, "deadline-passed"),
        (NAMES[:2], ("south",), timedelta(), "leases-lapsed"),
        (NAMES[:1], ("north",), timedelta(), None),
        (NAMES[:1], ("north", "south"), timedelta(), None),
        (NAMES[:2], ("north",), timedelta(), None),
    ],
)
def test_a_round_is_sealed_when_nothing_more_is_to_come(
    contributors: tuple[str, ...], lapsed: tuple[str, ...], after: timedelta, reason: str | None
) -> None:
    current = a_round(1, closed=None, contributors=contributors)
    assert deadline(current) == NOW + HOUR
    assert seal_reason(current, 2, NOW + after, lapsed) == reason


def test_a_measurement_waits_for_nobody_whose_lease_lapsed() -> None:
    current = a_round(1, closed=None, task="evaluate", contributors=())
    assert seal_reason(current, 0, NOW, NAMES) == "leases-lapsed"


# --- how long ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "pace", "seconds"),
    [
        (0, Pace((40.0,)), 0.0),
        (3, Pace(), 0.0),
        (3, Pace((30.0, 40.0, 500.0)), 120.0),
        (3, Pace((), 30.0, 0.0), 0.0),
        (3, Pace((), 30.0, 0.5), 30.0 + 2 * 60.0),
        (3, Pace((40.0,), 10.0, 0.0), 30.0 + 2 * 40.0),
        (3, Pace((40.0,), 10.0, 0.1), 90.0 + 2 * 40.0),
        (1, Pace((40.0,), 100.0, 0.0), 0.0),
        (1, Pace((40.0,), 100.0, 1.0), 0.0),
    ],
)
def test_the_time_left_is_what_medians_and_steps_say(left: int, pace: Pace, seconds: float) -> None:
    assert eta_seconds(left, pace) == pytest.approx(seconds)


def test_whoever_is_back_at_the_deadline_cannot_be_waited_for() -> None:
    until = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert not need_not_wait(None, until)
    assert not need_not_wait(until - timedelta(milliseconds=1), until)
    assert need_not_wait(until, until)


def test_a_round_is_sealed_with_as_many_as_its_plan_wants() -> None:
    current = replace(a_round(1, closed=None, contributors=NAMES[:2]), wanted=2)
    assert seal_reason(current, 2, NOW, ()) == "enough-contributed"
    assert seal_reason(replace(current, wanted=3), 2, NOW, ()) is None
    assert seal_reason(replace(current, wanted=None), 2, NOW, ()) is None
