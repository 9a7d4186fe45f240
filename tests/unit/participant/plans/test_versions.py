"""Releases of different protocol versions in one run: each answers what it speaks, the run takes the oldest of them."""

from __future__ import annotations

import pytest

from common.errors import UnsupportedProtocol
from common.statements.kinds import PlanStatement
from common.statements.versions import RunVersions
from coordinator import run_desk
from participant.plans import answering
from tests.support.agents import Institution

OFFERS = {"least": 1, "most": 3}


@pytest.fixture
def coordinator_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_desk, "SPOKEN", RunVersions(least=1, most=3))


def start(north: Institution, offered: dict[str, int]) -> None:
    draft = north.coordinator.draft().model_copy(update={"protocol_versions": RunVersions(**offered)})
    north.coordinator.desk.start_run(draft.model_dump_json().encode())
    north.session.catch_up()


@pytest.mark.usefixtures("coordinator_of_three")
def test_a_run_is_conducted_in_the_oldest_version_that_was_answered(
    north: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "SPOKEN", RunVersions(least=1, most=2))
    start(north, OFFERS)
    assert north.run.protocol_version == 3, "nobody answered: as offered"
    north.agent.answer(north.run)
    assert north.run.answers["north"].answer.protocol_version == 2
    others = [each for name, each in north.coordinator.participants.items() if name != "north"]
    others[0].answer(protocol_version=3)
    north.session.catch_up()
    assert north.run.protocol_version == 2
    others[1].answer(protocol_version=1)
    north.session.catch_up()
    assert north.run.protocol_version == 1


@pytest.mark.usefixtures("coordinator_of_three")
def test_who_does_not_speak_the_offers_least_version_refuses_whatever_the_policy_says(north: Institution) -> None:
    north.change_policy(answer="ask")
    start(north, {"least": 2, "most": 3})
    north.agent.answer(north.run)
    given = north.run.answers["north"].answer
    assert (given.accept, given.reasons) == (False, ("unsupported-protocol",))


@pytest.mark.usefixtures("coordinator_of_three")
def test_an_acceptance_in_a_version_that_was_not_offered_is_refused(north: Institution) -> None:
    start(north, {"least": 2, "most": 3})
    other = north.coordinator.participants["south"]
    with pytest.raises(UnsupportedProtocol, match=r"south accepts run \S+ in protocol version 1, expected 2 to 3\."):
        other.answer(protocol_version=1)
    with pytest.raises(UnsupportedProtocol, match=r"in protocol version 4, expected 2 to 3\."):
        other.answer(protocol_version=4)


def test_a_coordinator_starts_no_run_in_versions_that_it_does_not_speak(north: Institution) -> None:
    with pytest.raises(UnsupportedProtocol, match=r"offers protocol versions 1 to 3, this coordinator speaks 1\."):
        start(north, OFFERS)


def test_a_plan_of_version_1_alone_reads_as_before_there_was_a_choice(north: Institution) -> None:
    draft = north.coordinator.draft()
    assert "protocol_versions" not in draft.model_dump(mode="json")
    offering = draft.model_copy(update={"protocol_versions": RunVersions(least=1, most=2)})
    assert PlanStatement.model_validate_json(offering.model_dump_json()) == offering


def test_versions_are_an_interval() -> None:
    with pytest.raises(ValueError, match="protocol versions 3 to 2: the least comes first"):
        RunVersions(least=3, most=2)
    spoken = RunVersions(least=2, most=4)
    answers = [spoken.answer_to(RunVersions(least=low, most=most)) for low, most in ((1, 3), (2, 3), (4, 9), (5, 9))]
    assert answers == [None, 3, 4, None]
