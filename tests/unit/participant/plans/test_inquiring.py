"""Operators' questions: answered once, in codes, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from common import strict_json
from common.errors import CoordinatorUnreachable
from common.wire.messages import Estimate, Inquiry
from participant.memory.records import Work
from participant.plans.inquiring import Inquiring
from tests.support.agents import Institution
from tests.support.participants import RUN


@pytest.fixture
def inquiring(north: Institution) -> Inquiring:
    session: Any = north.session
    return Inquiring(session, north.mirror, north.outbox, north.source, north.records)


def an_inquiry(north: Institution, number: int = 1, **plan: Any) -> Inquiry:
    draft = north.coordinator.draft(**plan).model_dump(mode="json")
    return Inquiry(bytes([number]) * 16, strict_json.dumps(draft))


def test_an_inquiry_is_answered_once_with_verdict_codes_and_hours(north: Institution, inquiring: Inquiring) -> None:
    north.change_policy(answer="ask", windows=("daily 22:00-06:00 UTC",))
    inquiry = an_inquiry(north)
    assert inquiring((inquiry,))
    assert not inquiring((inquiry,))
    assert north.session.estimates == [Estimate(inquiry.id, "ask", (), 0.0, ("daily 22:00-06:00 UTC",))]
    assert [kind for kind, _ in north.egress()] == ["estimate"]


def test_what_the_policy_would_refuse_is_told_in_codes(north: Institution, inquiring: Inquiring) -> None:
    north.change_policy(min_quorum=5, max_rounds=1)
    inquiring((an_inquiry(north),))
    (said,) = north.session.estimates
    assert (said.verdict, said.codes) == ("refuse", ("quorum-too-small", "too-many-rounds"))


def test_a_policy_may_keep_its_mind_to_itself(north: Institution, inquiring: Inquiring) -> None:
    north.change_policy(answer_inquiries=False)
    assert not inquiring((an_inquiry(north),))
    assert north.session.estimates == []


def test_seconds_a_round_are_those_of_a_run_as_large(north: Institution, inquiring: Inquiring) -> None:
    north.coordinator.start_run()
    north.session.catch_up()
    for number, seconds, tokens in ((0, 50.0, 0), (1, 10.0, 0), (1, 4.0, 20), (2, 16.0, 20), (3, 1.0, 0)):
        north.records.worked(Work(RUN, number, "2026-01-01T00:00:00.000Z", seconds, "cpu", tokens))
    inquiring((an_inquiry(north),))
    assert north.session.estimates[0].seconds_per_round == 15.0


@pytest.mark.parametrize("content", [b"{}", b"no json", b'{"run": "a", "run": "b"}'])
def test_what_is_no_plan_is_not_answered(north: Institution, inquiring: Inquiring, content: bytes) -> None:
    assert not inquiring((Inquiry(b"x" * 16, content),))
    assert north.session.estimates == []


def test_an_answer_that_does_not_reach_the_coordinator_ends_nothing(north: Institution, inquiring: Inquiring) -> None:
    north.session.failures = [CoordinatorUnreachable("No answer.")]
    assert not inquiring((an_inquiry(north),))
