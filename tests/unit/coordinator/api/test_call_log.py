"""A refused call is named in the log; trying again writes no more lines."""

from __future__ import annotations

from typing import Any

import pytest

from common.clock import ManualClock
from common.errors import InvalidInvitation, LLMasOSError, RoundNotOpen, TooManyRequests
from coordinator.api.call_log import EVERY_SECONDS, MOST_REMEMBERED, CallLog

ENROL = "/llmasos.v1.Enrolment/Enrol"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    fields = ("institution", "peer", "method", "code", "reason", "repeated")
    return [{name: vars(record)[name] for name in fields if name in vars(record)} for record in caplog.records]


def test_a_guess_is_named_once_a_minute_with_how_often_it_was_repeated(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = CallLog(clock)
    for _ in range(120):
        log.refused("", "203.0.113.9", ENROL, InvalidInvitation("The invitation is not known here."))
    clock.advance(seconds=EVERY_SECONDS)
    log.refused("", "203.0.113.9", ENROL, InvalidInvitation("The invitation is not known here."))
    line = {
        "peer": "203.0.113.9",
        "method": ENROL,
        "code": "invalid-invitation",
        "reason": "The invitation is not known here.",
    }
    assert lines(caplog) == [line | {"repeated": 0}, line | {"repeated": 119}]
    assert {record.getMessage() for record in caplog.records} == {"call refused"}


def test_callers_methods_and_codes_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    log = CallLog(ManualClock())
    tried: list[tuple[str, str, str, LLMasOSError]] = [
        ("north", "10.0.0.1", "/a", RoundNotOpen("over")),
        ("south", "10.0.0.1", "/a", RoundNotOpen("over")),
        ("north", "10.0.0.1", "/b", RoundNotOpen("over")),
        ("north", "10.0.0.1", "/a", TooManyRequests("many")),
        ("", "10.0.0.1", "/a", TooManyRequests("many")),
        ("", "10.0.0.2", "/a", TooManyRequests("many")),
    ]
    for each in (*tried, *tried):
        log.refused(*each)
    assert len(caplog.records) == len(tried)
    assert [line.get("institution") for line in lines(caplog)] == ["north", "south", "north", "north", None, None]


def test_a_member_that_changes_its_address_is_one_caller(caplog: pytest.LogCaptureFixture) -> None:
    log = CallLog(ManualClock())
    for number in range(100):
        log.refused("mallory", f"10.0.0.{number}", "/a", RoundNotOpen("over"))
    assert len(caplog.records) == 1


def test_what_the_log_remembers_is_bounded() -> None:
    log = CallLog(ManualClock())
    for number in range(MOST_REMEMBERED + 100):
        log.refused("", f"2001:db8:{number:x}::/64", "/a", RoundNotOpen("over"))
    assert len(log._lines) == MOST_REMEMBERED
