"""Inquiries: an operator asks, policies answer, nobody is bound and nothing is kept."""

from __future__ import annotations

import threading
import time

import pytest

from common.clock import SystemClock
from common.errors import MalformedStatement, TooManyRequests, UnknownObject
from common.wire.convert import MAX_INQUIRIES
from common.wire.messages import Estimate, Inquiry
from coordinator.ports import EstimateView
from coordinator.watching.inquiries import InquiryDesk
from tests.support.coordinators import Coordinator

BOUND_SECONDS = 20.0


def draft(coordinator: Coordinator) -> bytes:
    return coordinator.draft().model_dump_json().encode()


class Asking:
    """`ask` on a thread of its own."""

    def __init__(self, desk: InquiryDesk, plan_json: bytes, seconds: float = BOUND_SECONDS) -> None:
        self.estimates: tuple[EstimateView, ...] = ()
        self._thread = threading.Thread(target=self._ask, args=(desk, plan_json, seconds))
        self._thread.start()

    def _ask(self, desk: InquiryDesk, plan_json: bytes, seconds: float) -> None:
        self.estimates = desk.ask(plan_json, seconds)

    def join(self) -> tuple[EstimateView, ...]:
        self._thread.join(BOUND_SECONDS)
        return self.estimates


def opened(desk: InquiryDesk, coordinator: Coordinator, name: str, count: int = 1) -> tuple[Inquiry, ...]:
    until = time.monotonic() + BOUND_SECONDS
    while len(found := desk.open_for(coordinator[name].member)) < count and time.monotonic() < until:
        time.sleep(0.002)
    return found


@pytest.fixture
def desk(coordinator: Coordinator) -> InquiryDesk:
    return InquiryDesk(coordinator.ledger, SystemClock())


def test_every_trainer_is_asked_once_and_all_answers_come_back(coordinator: Coordinator, desk: InquiryDesk) -> None:
    names = coordinator.state.active_trainers
    plan = draft(coordinator)
    asking = Asking(desk, plan)
    for name in names:
        (inquiry,) = opened(desk, coordinator, name)
        assert inquiry.plan_json == plan
        desk.answer(coordinator[name].member, Estimate(inquiry.id, "refuse", ("quorum-too-small",), 2.5, ("daily",)))
        assert desk.open_for(coordinator[name].member) == ()
    assert asking.join() == tuple(
        EstimateView(name, "refuse", ("quorum-too-small",), 2.5, ("daily",)) for name in names
    )


def test_who_says_nothing_is_silent(coordinator: Coordinator, desk: InquiryDesk) -> None:
    views = desk.ask(draft(coordinator), 0.0)
    assert {view.verdict for view in views} == {"silent"}
    assert [view.institution for view in views] == list(coordinator.state.active_trainers)


def test_an_answer_to_nothing_is_refused_by_name(coordinator: Coordinator, desk: InquiryDesk) -> None:
    name = coordinator.state.active_trainers[0]
    with pytest.raises(UnknownObject, match="No such inquiry is open"):
        desk.answer(coordinator[name].member, Estimate(b"\x00" * 16, "accept"))


def test_a_draft_that_is_none_is_asked_of_nobody(desk: InquiryDesk) -> None:
    with pytest.raises(MalformedStatement, match="The draft is no plan statement"):
        desk.ask(b'{"run": 1}', 1.0)


def test_open_inquiries_are_few(coordinator: Coordinator, desk: InquiryDesk) -> None:
    name = coordinator.state.active_trainers[0]
    asking = [Asking(desk, draft(coordinator)) for _ in range(MAX_INQUIRIES)]
    found = opened(desk, coordinator, name, MAX_INQUIRIES)
    with pytest.raises(TooManyRequests, match=f"{MAX_INQUIRIES} inquiries are open already"):
        desk.ask(draft(coordinator), 1.0)
    for trainer in coordinator.state.active_trainers:
        for inquiry in found:
            desk.answer(coordinator[trainer].member, Estimate(inquiry.id, "accept"))
    assert all(len(each.join()) == len(coordinator.state.active_trainers) for each in asking)
