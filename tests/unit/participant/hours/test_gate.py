"""The gate: pause, hours and load, each alone and together; until when, and whether work in progress stops."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from common.clock import rfc3339
from participant.hours.gate import Closed, gate, load_per_core
from participant.memory.orders import Order
from participant.policy import Policy

NIGHTS = Policy.model_validate({"windows": ["daily 22:00-06:00 UTC"]})
ALWAYS = Policy()


def at(hour: int, day: int = 23) -> datetime:
    return datetime(2026, 11, day, hour, tzinfo=UTC)


def a_pause(until: datetime | None = None, *, now: bool = False) -> Order:
    return Order("pause", {"until": rfc3339(until) if until else "", "now": now}, rfc3339(at(0)))


CASES: dict[str, tuple[Policy, Order | None, datetime, Closed | None]] = {
    "no rule": (ALWAYS, None, at(12), None),
    "in the window": (NIGHTS, None, at(23), None),
    "outside hours": (NIGHTS, None, at(12), Closed("outside-hours", at(22), now=True)),
    "paused for good": (ALWAYS, a_pause(), at(12), Closed("paused", None, now=False)),
    "paused at once": (ALWAYS, a_pause(now=True), at(12), Closed("paused", None, now=True)),
    "paused until": (ALWAYS, a_pause(at(18)), at(12), Closed("paused", at(18), now=False)),
    "the pause is over": (ALWAYS, a_pause(at(12), now=True), at(12), None),
    "over, but outside hours": (NIGHTS, a_pause(at(11)), at(12), Closed("outside-hours", at(22), now=True)),
    "paused and outside hours": (NIGHTS, a_pause(), at(12), Closed("paused", None, now=True)),
    "the pause ends outside hours": (NIGHTS, a_pause(at(8, 24)), at(23), Closed("paused", at(22, 24), now=False)),
    "the pause ends in the window": (NIGHTS, a_pause(at(23)), at(12), Closed("paused", at(23), now=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gate(name: str) -> None:
    policy, order, now, expected = CASES[name]
    assert gate(policy, order, None, now) == expected


@pytest.mark.parametrize(("load", "closed"), [(None, False), (0.1, False), (0.7, False), (0.71, True)])
def test_a_busy_machine_begins_nothing_and_stops_nothing(load: float | None, closed: bool) -> None:
    fields: dict[str, Any] = {"max_load": 0.7}
    found = gate(Policy.model_validate(fields), None, load, at(12))
    assert found == (Closed("machine-busy", None, now=False) if closed else None)


def test_load_does_not_matter_where_the_policy_says_nothing() -> None:
    assert gate(ALWAYS, None, 99.0, at(12)) is None


def test_this_machines_load_is_a_number_or_unknown() -> None:
    load = load_per_core()
    assert load is None or load >= 0
