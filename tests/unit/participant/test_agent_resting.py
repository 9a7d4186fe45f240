"""Hours, pauses, load and budgets: states of an agent, never failures; and the round goes on where it stopped."""

from __future__ import annotations

import threading

import pytest

from common.clock import rfc3339
from common.ledger.state import RoundRecord
from coordinator.ports import Steering
from participant import agent as agent_module
from participant import watching
from participant.bench.workbench import RoundOver
from participant.policy import Budgets, Usage
from participant.tasks import contribution_slot
from participant.watching import Interrupted
from tests.support.agents import Institution
from tests.support.federations import until
from tests.support.participants import RUN

NIGHT = "daily 22:00-06:00 UTC"
"""The tests' clock begins at midnight, UTC."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.005)


@pytest.fixture
def waiting(north: Institution) -> RoundRecord:
    """An open round that waits for north."""
    return north.open_round(deadline_seconds=86_400 * 20)


class Loop:
    """The agent's loop on a thread of its own, while inside."""

    def __init__(self, north: Institution) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=north.agent.run, args=(self._stopping,))

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def contributed(north: Institution) -> bool:
    return "north" in north.mirror.state.runs[RUN].rounds[0].contributions


def test_outside_hours_a_round_waits_and_the_coordinator_hears_until_when(
    north: Institution, waiting: RoundRecord
) -> None:
    clock = north.coordinator.clock
    clock.advance(seconds=12 * 3600)
    north.change_policy(windows=(NIGHT,))
    with Loop(north):
        until(lambda: bool(north.session.reports), "a report", 30)
        until(lambda: bool(north.workbench.rested), "the worker rests", 30)
        assert not contributed(north)
        clock.advance(seconds=10 * 3600 + 1)
        until(lambda: contributed(north), "the round is worked on", 30)
    report = north.session.reports[0]
    assert (report.activity, report.available_at) == ("outside-hours", "2026-01-01T22:00:00.000Z")
    assert "outside hours" in north.status.said
    assert north.agent._attempts == {}


def test_status_says_which_round_waits_and_until_when(north: Institution, waiting: RoundRecord) -> None:
    north.coordinator.clock.advance(seconds=12 * 3600)
    north.change_policy(windows=(NIGHT,))
    assert north.agent._next(north.mirror.state) is None
    assert north.status.told["rounds_held"] == [
        {
            "run": RUN,
            "round": 1,
            "state": "outside-hours",
            "until": "2026-01-01T22:00:00.000Z",
            "deadline": waiting.opened.stages[-1].deadline,
            "budgets": [],
        }
    ]


def test_a_window_that_closes_in_the_middle_of_a_round_interrupts_it(north: Institution, waiting: RoundRecord) -> None:
    north.change_policy(windows=(NIGHT,))
    north.workbench.hold = True
    with Loop(north):
        assert north.workbench.holding.wait(30)
        north.workbench.hold = False
        north.coordinator.clock.advance(seconds=7 * 3600)
        until(lambda: "outside hours" in north.status.said, "the agent rests", 30)
        assert not contributed(north)
        north.coordinator.clock.advance(seconds=16 * 3600)
        until(lambda: contributed(north), "the round goes on", 30)
    assert len(north.workbench.asked) == 2
    assert north.workbench.asked[0] == north.workbench.asked[1]
    assert north.agent._given_up == set()
    assert north.agent._attempts == {}
    assert "work interrupted" in [event.event for event in north.records.events()]


def test_a_pause_lets_the_round_in_progress_go_on_and_nothing_new_begin(
    north: Institution, waiting: RoundRecord
) -> None:
    north.order("pause", until="", now=False)
    north.agent.work(north.run, waiting)
    assert contributed(north)
    north.others_act()
    assert north.agent._next(north.mirror.state) is None


def test_a_pause_at_once_interrupts_and_resuming_goes_on(north: Institution, waiting: RoundRecord) -> None:
    north.workbench.hold = True
    with Loop(north):
        assert north.workbench.holding.wait(30)
        north.workbench.hold = False
        north.order("pause", until="", now=True)
        until(lambda: "paused" in north.status.said, "the agent is paused", 30)
        assert not contributed(north)
        assert north.orders.clear("pause")
        until(lambda: contributed(north), "the round goes on", 30)
    assert {"paused"} <= {report.activity for report in north.session.reports}
    paused = next(report for report in north.session.reports if report.activity == "paused")
    assert paused.available_at == ""


def test_a_pause_whose_time_is_over_is_no_pause(north: Institution, waiting: RoundRecord) -> None:
    clock = north.coordinator.clock
    clock.advance(seconds=60)
    north.order("pause", until="2026-01-01T00:02:00.000Z", now=True)
    assert north.agent._next(north.mirror.state) is None
    assert north.session.reports[-1].available_at == "2026-01-01T00:02:00.000Z"
    clock.advance(seconds=61)
    assert north.agent._next(north.mirror.state) is not None
    assert north.orders.get("pause") is None
    assert [event.event for event in north.records.events()][-1] == "pause is over"


def test_a_contribution_that_is_signed_is_sent_outside_hours_too_but_not_against_a_pause_at_once(
    north: Institution, waiting: RoundRecord
) -> None:
    north.change_policy(windows=(NIGHT,))

    def close() -> None:
        north.session.before_submit = lambda: None
        north.coordinator.clock.advance(seconds=12 * 3600)

    north.session.before_submit = close
    north.agent.work(north.run, waiting)
    assert contributed(north)
    north.others_act()


def test_a_signed_contribution_waits_while_paused_at_once(north: Institution, waiting: RoundRecord) -> None:
    def cut() -> None:
        north.order("pause", until="", now=True)
        raise RoundOver

    north.session.before_submit = cut
    with pytest.raises((RoundOver, Interrupted)):
        north.agent.work(north.run, waiting)
    assert north.outbox.contributed(waiting) is not None
    assert north.agent._next(north.mirror.state) is None


def test_a_busy_machine_keeps_new_work_from_beginning_and_stops_none(north: Institution, waiting: RoundRecord) -> None:
    north.change_policy(max_load=0.5)
    north.load = 0.9
    assert north.agent._next(north.mirror.state) is None
    assert north.session.reports[-1].activity == "machine-busy"
    north.agent.work(north.run, waiting)
    assert contributed(north)


def test_a_spent_budget_means_no_further_round_and_says_so(north: Institution, waiting: RoundRecord) -> None:
    north.change_policy(budgets=Budgets(cpu_hours=2).model_dump())
    north.used = Usage(cpu_hours=2.5, device="cpu")
    assert north.agent._next(north.mirror.state) is None
    report = north.session.reports[-1]
    assert (report.activity, report.available_at) == ("paused", "")
    (held,) = north.status.told["rounds_held"]
    assert (held["state"], held["budgets"]) == ("budget-spent", ["budgets.cpu_hours: 2.5 h used, < 2 h allowed"])
    assert [event.event for event in north.records.events()] == ["plan answered", "budget spent"]
    north.change_policy(budgets=Budgets(cpu_hours=20).model_dump())
    assert north.agent._next(north.mirror.state) is not None


def test_rounds_that_an_extension_adds_beyond_the_institutions_bound_wait_here_and_say_so(north: Institution) -> None:
    north.change_policy(max_rounds=1)
    north.coordinator.start_run(rounds=1)
    for name in ("east", "north", "south"):
        north.coordinator[name].answer()
    north.coordinator.advance()
    north.coordinator.desk.control_run("tiny", "extend", "operator", Steering(rounds=2))
    north.session.catch_up()
    assert north.agent._next(north.mirror.state) is not None, "the round that was accepted"
    for name in ("east", "north", "south"):
        north.coordinator[name].contribute()
    north.coordinator.advance()
    north.session.catch_up()
    assert north.agent._next(north.mirror.state) is None
    (held,) = north.status.told["rounds_held"]
    assert (held["state"], held["budgets"]) == ("budget-spent", ["max_rounds: 2 used, <= 1 allowed"])


def test_reports_of_a_waiting_round_go_about_every_second_and_are_booked(
    north: Institution, waiting: RoundRecord
) -> None:
    north.order("pause", until="", now=False)
    for _ in range(5):
        north.agent._next(north.mirror.state)
    assert len(north.session.reports) == 1
    north.coordinator.clock.advance(seconds=1)
    north.agent._next(north.mirror.state)
    assert len(north.session.reports) == 2
    north.orders.clear("pause")
    north.agent._next(north.mirror.state)
    booked = [entry for entry in north.journal.egress() if entry.kind == "reports"]
    assert [entry.digest for entry in booked] == [waiting.place.digest] * len(booked)
    assert sum(entry.bytes for entry in booked) > 20


def test_work_and_measurements_are_kept(north: Institution, waiting: RoundRecord) -> None:
    north.agent.work(north.run, waiting)
    assert [(entry.round, entry.device, entry.tokens) for entry in north.records.work(RUN)] == [
        (0, "cpu", 0),
        (0, "cpu", 0),
        (1, "cpu", 20),
    ]
    (measured,) = north.records.measurements(RUN)
    assert (measured.round, measured.task, measured.loss_sum_fixed, measured.num_tokens) == (1, "train", 2**20, 100)
    assert measured.at == rfc3339(north.coordinator.clock.now())


def test_without_any_policy_nothing_begins(north: Institution, waiting: RoundRecord) -> None:
    north.source.policy = None
    assert north.agent._next(north.mirror.state) is None
    assert north.session.reports[-1].activity == "paused"


# --- orders -----------------------------------------------------------------------------------------------------------


def test_a_new_key_waits_until_nothing_signed_is_unsent(north: Institution, waiting: RoundRecord) -> None:
    north.order("rotate")
    north.order("pause", until="", now=False)
    north.agent._next(north.mirror.state)
    assert north.membership.done == ["rotate"]
    assert north.orders.get("rotate") is None


def test_leaving_after_the_round_gives_its_contribution_first_and_begins_no_other(
    north: Institution, waiting: RoundRecord
) -> None:
    north.order("leave", after_round=True)
    north.agent.run(threading.Event())
    assert contributed(north)
    assert north.membership.done == ["leave"]
    assert north.status.said[-1] == "left"
    assert north.orders.get("leave") is None
    assert list(north.blobs.list()) == []


def test_leaving_at_once_stops_the_round_in_progress(north: Institution, waiting: RoundRecord) -> None:
    north.workbench.hold = True
    thread = threading.Thread(target=north.agent.run, args=(threading.Event(),))
    thread.start()
    assert north.workbench.holding.wait(30)
    north.order("leave", after_round=False)
    thread.join(30)
    assert not thread.is_alive()
    assert not contributed(north)
    assert north.membership.done == ["leave"]
    assert contribution_slot(waiting) in north.agent._given_up
