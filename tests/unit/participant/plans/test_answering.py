"""Answers by policy and by people: who decides, when, and what an acceptance says."""

from __future__ import annotations

import pytest

from common.errors import InvalidConfiguration, LLMasOSError, TooLittleData, UsageError, WrongTensors
from participant.datasets import DataSet
from participant.plans.answering import RETRY_SECONDS
from participant.tasks import AnswerPlan
from tests.support.agents import Institution
from tests.support.participants import RUN

SHA = "ab" * 32


@pytest.fixture
def asked(north: Institution) -> Institution:
    """A plan that waits for a person."""
    north.change_policy(answer="ask")
    north.coordinator.start_run()
    north.session.catch_up()
    return north


def answer(north: Institution) -> tuple[bool, tuple[str, ...]]:
    given = north.run.answers["north"].answer
    return given.accept, given.reasons


def work(north: Institution) -> None:
    """One pass of the loop."""
    task = north.agent._next(north.mirror.state)
    if task is not None:
        north.agent._attempt(task)


def test_a_plan_waits_for_a_person_and_status_says_what_to_type(asked: Institution) -> None:
    work(asked)
    assert asked.outbox.answered(asked.run) is None
    assert asked.status.told["plans_waiting"] == [
        {"run": RUN, "why": "a person decides", "command": f"llmasos-participant plan accept {RUN}"}
    ]


def test_a_persons_acceptance_is_signed_with_the_agreement(asked: Institution) -> None:
    asked.decide(accept=True, agreement=SHA)
    work(asked)
    assert answer(asked) == (True, ())
    assert asked.run.answers["north"].answer.data_use_agreement == SHA
    assert asked.status.told["plans_waiting"] == []
    noted = asked.records.events()[-1]
    assert (noted.event, noted.fields) == (
        "plan answered",
        {"run": RUN, "accept": True, "reasons": [], "by": "person", "protocol_version": 1},
    )


def test_a_persons_refusal_is_signed_with_its_codes_and_reads_no_data(asked: Institution) -> None:
    asked.decide(accept=False, reasons=("not-now",))
    work(asked)
    assert answer(asked) == (False, ("not-now",))
    assert asked.workbench.prepared == []


def test_an_acceptance_states_hours_and_the_policys_agreement(north: Institution) -> None:
    north.change_policy(windows=("daily 00:00-06:00 UTC",), agreement=SHA)
    north.coordinator.start_run()
    north.agent.answer(north.run)
    given = north.run.answers["north"].answer
    assert (given.availability, given.data_use_agreement) == (("daily 00:00-06:00 UTC",), SHA)


def test_outside_hours_a_plan_is_answered_without_the_worker(north: Institution) -> None:
    north.change_policy(windows=("daily 22:00-23:00 UTC",))
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert answer(north) == (True, ())
    assert north.workbench.prepared == []


def test_paused_by_a_person_nothing_is_accepted_by_policy(north: Institution) -> None:
    north.order("pause", until="", now=False)
    north.coordinator.start_run()
    north.session.catch_up()
    work(north)
    assert north.outbox.answered(north.run) is None
    assert north.status.told["plans_waiting"][0]["why"] == "paused by a person; the policy would accept"
    north.orders.clear("pause")
    work(north)
    assert answer(north) == (True, ())


def test_without_a_data_set_the_answer_is_no(north: Institution) -> None:
    north.data = []
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert answer(north) == (False, ("no-data",))


def test_data_for_other_tasks_are_an_answer_that_needs_no_worker(north: Institution) -> None:
    north.data = [DataSet(name="pairs", folder=north.data[0].folder, tasks=("seq2seq",))]
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert answer(north) == (False, ("no-data",))
    assert north.workbench.prepared == []


def test_what_a_persons_acceptance_lacks_is_told_where_the_plan_waits(asked: Institution) -> None:
    asked.data = [DataSet(name="pairs", folder=asked.data[0].folder, tasks=("seq2seq",))]
    asked.decide(accept=True)
    work(asked)
    work(asked)
    (waiting,) = asked.status.told["plans_waiting"]
    assert waiting["why"].startswith("accepted by a person, but: No data set here is for the plan's task (causal-lm)")


def test_a_folder_that_is_gone_is_an_answer(north: Institution) -> None:
    north.workbench.failure = UsageError("/data is not a folder of text.")
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert answer(north) == (False, ("unreadable-data",))


@pytest.mark.parametrize(
    "error", [InvalidConfiguration("The plan's tokenizer does not do."), WrongTensors("Other ones.")]
)
def test_a_plan_that_does_not_go_with_its_own_files_is_refused_at_once(north: Institution, error: LLMasOSError) -> None:
    north.workbench.failure = error
    north.coordinator.start_run()
    north.agent.answer(north.run)
    assert answer(north) == (False, (error.code,))


def test_a_persons_acceptance_is_not_lost_by_data_that_does_not_do_yet(asked: Institution) -> None:
    asked.decide(accept=True)
    asked.workbench.failure = TooLittleData("Three words.")
    work(asked)
    assert asked.outbox.answered(asked.run) is None
    work(asked)
    assert asked.status.told["plans_waiting"][0]["why"] == "accepted by a person, but: Three words."
    asked.coordinator.clock.advance(seconds=RETRY_SECONDS)
    work(asked)
    assert answer(asked) == (True, ())


def test_a_policy_that_cannot_be_read_loses_no_answer(north: Institution) -> None:
    policy = north.policy
    north.source.policy = None
    north.coordinator.start_run()
    north.session.catch_up()
    work(north)
    assert north.outbox.answered(north.run) is None
    assert north.status.told["plans_waiting"][0]["why"].startswith("the policy cannot be read: policy.yaml:3")
    north.source.policy = policy
    work(north)
    assert answer(north) == (True, ())


def test_a_person_may_accept_after_the_first_round_was_opened_and_the_next_one_hears_this_institution(
    asked: Institution,
) -> None:
    asked.coordinator.enrol("west")
    asked.others_act()
    asked.coordinator.clock.advance(seconds=4000)
    asked.others_act()
    assert asked.round.opened.cohort == ("east", "south", "west")
    assert asked.agent._next(asked.mirror.state) is None
    asked.decide(accept=True)
    task = asked.agent._next(asked.mirror.state)
    assert isinstance(task, AnswerPlan)
    asked.agent._attempt(task)
    assert answer(asked) == (True, ())
    asked.others_act()
    assert asked.round.number == 2
    assert asked.round.opened.cohort == ("east", "north", "south", "west")
