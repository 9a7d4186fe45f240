"""Orders of people: what a command writes, the daemon reads, whichever runs first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from participant.memory.journal import Journal
from participant.memory.orders import Decision, Order, Orders

AT = "2026-11-21T22:12:00.000Z"
PLAN = "ab" * 32


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    orders = Orders(tmp_path / "journal.sqlite")
    yield orders
    orders.close()


def test_an_order_stands_until_it_is_cleared_across_restarts(orders: Orders, tmp_path: Path) -> None:
    orders.give(Order("pause", {"until": AT, "now": True}, AT))
    again = Orders(tmp_path / "journal.sqlite")
    assert again.get("pause") == Order("pause", {"until": AT, "now": True}, AT)
    assert again.clear("pause")
    assert not again.clear("pause")
    assert orders.get("pause") is None
    again.close()


def test_the_newest_order_of_a_kind_counts_and_kinds_do_not_mix(orders: Orders) -> None:
    orders.give(Order("pause", {"until": "", "now": False}, AT))
    orders.give(Order("leave", {"after_round": True}, AT))
    orders.give(Order("pause", {"until": AT, "now": False}, AT))
    assert orders.get("pause") == Order("pause", {"until": AT, "now": False}, AT)
    assert orders.get("leave") == Order("leave", {"after_round": True}, AT)
    assert orders.get("rotate") is None


def test_a_decision_is_kept_by_plan_and_may_change(orders: Orders) -> None:
    orders.decide(Decision(PLAN, accept=True, agreement="cd" * 32, reasons=(), at=AT))
    changed = Decision(PLAN, accept=False, agreement="", reasons=("not-our-field", "too-long"), at=AT)
    orders.decide(changed)
    assert orders.decision(PLAN) == changed
    assert orders.decision("00" * 32) is None


def test_orders_lie_beside_the_journal_in_one_file(orders: Orders, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.keep([(0, "ab" * 32, b"genesis")])
    orders.give(Order("rotate", {}, AT))
    assert journal.ledger() == [b"genesis"]
    journal.close()
    assert (tmp_path / "journal.sqlite").stat().st_mode & 0o777 == 0o600
