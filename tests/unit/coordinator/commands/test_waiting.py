"""`run wait`: what is waited for, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

import pytest

from common.errors import RunFailed, UsageError, WaitTimedOut
from common.terminal import Terminal
from coordinator.api.client import OperatorSession
from coordinator.commands.waiting import Goal, wait_for
from coordinator.ports import ParticipantView, RunView
from tests.unit.coordinator.commands.a_view import a_view


class Views:
    """A session that shows these views and then ends, or stays silent until the time is over."""

    def __init__(self, *views: RunView) -> None:
        self._views = views

    def watch(self, run: str, *, timeout: float | None = None) -> Iterator[RunView]:
        yield from self._views


def waited(goal: str, *views: RunView, timeout: float | None = None) -> RunView:
    session: Any = Views(*views)
    terminal = Terminal(stdout=io.StringIO(), stderr=io.StringIO())
    return wait_for(cast(OperatorSession, session), "tiny", Goal.parse(goal), timeout, terminal)


ENDED = a_view(phase="ended", end_reason="aborted")


@pytest.mark.parametrize("text", ["", "round", "round=0", "round=x", "done", "Ended"])
def test_another_goal_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=f"--for is '{text}', expected accepted, ended or round=N, such as round=10."):
        Goal.parse(text)


def test_a_round_is_waited_for_until_it_is_closed() -> None:
    assert waited("round=2", a_view()).round == 3
    with pytest.raises(RunFailed, match=r"ended before round 3 was closed: aborted, after round 3\."):
        waited("round=3", a_view(), ENDED)


def test_the_end_is_reached_however_it_came() -> None:
    assert waited("ended", a_view(), ENDED).end_reason == "aborted"


def test_as_many_acceptances_as_the_quorum_are_enough() -> None:
    def answering(*states: str) -> RunView:
        people = tuple(ParticipantView(f"n{index}", state) for index, state in enumerate(states))
        return a_view(phase="answering", round=0, rounds=(), participants=people)

    few, enough = answering("accepted", "accepted", "asked"), answering("accepted", "accepted", "accepted")
    assert waited("accepted", few, enough) is enough
    assert waited("accepted", a_view()).round == 3, "a round was opened, so enough accepted"


def test_when_the_time_is_over_it_says_where_the_run_stands() -> None:
    with pytest.raises(
        WaitTimedOut, match=r"tiny-3f2a90: waited 2 h until it ended, in vain; it stands at round 3, collecting\."
    ):
        waited("ended", a_view(), timeout=7200)
