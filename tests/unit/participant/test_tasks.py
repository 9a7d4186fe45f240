"""What an institution has to do next, from its copy of the ledger alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.ledger.state import Departure
from participant.tasks import AnswerPlan, WorkOnRound, answer_slot, contribution_slot, next_task
from tests.support.story import Story, tell


@pytest.fixture(scope="module")
def story() -> Story:
    return tell()


def nothing(_slot: str) -> bool:
    return False


def given_up(*slots: str) -> Callable[[str], bool]:
    return set(slots).__contains__


def test_a_plan_is_to_be_answered_once(story: Story) -> None:
    task = next_task(story.at["plan"], "north", nothing)
    assert isinstance(task, AnswerPlan)
    assert next_task(story.at["answered"], "north", nothing) is None


def test_an_open_round_is_to_be_worked_on_until_the_contribution_is_in(story: Story) -> None:
    task = next_task(story.at["opened"], "north", nothing)
    assert isinstance(task, WorkOnRound)
    assert task.record.number == 1
    assert next_task(story.at["contributed"], "north", nothing) is None
    assert next_task(story.at["closed"], "north", nothing) is None


def test_an_evaluation_is_work_too(story: Story) -> None:
    task = next_task(story.at["evaluating"], "south", nothing)
    assert isinstance(task, WorkOnRound)
    assert task.record.opened.task == "evaluate"


@pytest.mark.parametrize("stage", ["roster", "paused", "ended"])
def test_without_an_open_round_or_a_new_plan_there_is_nothing_to_do(story: Story, stage: str) -> None:
    assert next_task(story.at[stage], "north", nothing) is None


def test_who_is_no_member_has_nothing_to_do(story: Story) -> None:
    assert next_task(story.at["opened"], "stranger", nothing) is None


def test_what_was_given_up_is_left_alone(story: Story) -> None:
    record = story.at["opened"].runs["tiny-0a1b2c"].rounds[0]
    assert next_task(story.at["opened"], "north", given_up(contribution_slot(record))) is None
    run = story.at["plan"].runs["tiny-0a1b2c"]
    assert next_task(story.at["plan"], "north", given_up(answer_slot(run))) is None


def test_after_the_first_round_was_opened_only_a_wanted_answer_is_given(story: Story) -> None:
    opened = story.at["opened"]
    (run,) = opened.runs.values()
    late = replace(run, answers={name: answer for name, answer in run.answers.items() if name != "north"})
    record = replace(run.rounds[0], opened=run.rounds[0].opened.model_copy(update={"cohort": ("east", "south")}))
    state = replace(opened, runs={run.run: replace(late, rounds=(record,))})
    assert next_task(state, "north", nothing) is None
    assert next_task(state, "north", nothing, lambda _run: True) == AnswerPlan(state.runs[run.run])


def test_who_has_left_has_nothing_to_do(story: Story) -> None:
    opened = story.at["opened"]
    assert next_task(replace(opened, departures={"north": Departure(opened.genesis_place)}), "north", nothing) is None


def test_slots_name_the_statement_that_they_answer(story: Story) -> None:
    run = story.at["opened"].runs["tiny-0a1b2c"]
    assert answer_slot(run) == f"answer/{story.federation.plan.digest}"
    assert contribution_slot(run.rounds[0]) == f"contribution/{story.said['opened'].digest}"
