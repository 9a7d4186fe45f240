"""What a round without bytes waits for: the disk so often and no oftener, whatever went before, and no answer twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from common.statements.envelope import parse
from common.statements.kinds import Kind
from coordinator import ledger as module
from coordinator.ports import LedgerSlice
from coordinator.store.database import Database
from tests.support.coordinators import NAMES, Coordinator

ROUNDS = 6
SYNCS_OF_A_BLOB = 3
"""Content, leaf list, folder."""


class Counted:
    """How often something was called, by name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.calls: dict[str, int] = {}

    def count(self, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)
        self.calls[name] = 0

        def counting(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return real(*arguments, **named)

        self._patch.setattr(owner, name, counting)

    def taken(self) -> dict[str, int]:
        """The counts since the last time."""
        found, self.calls = self.calls, dict.fromkeys(self.calls, 0)
        return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def play_a_round(coordinator: Coordinator) -> None:
    """Everybody contributes to the open round; it is closed and the next one opened."""
    for name in NAMES:
        coordinator[name].contribute()
    coordinator.advance()


def make_all_folders(coordinator: Coordinator) -> None:
    """A blob whose folder is new waits for one more sync; after 256 of them none does."""
    for number in range(256):
        (coordinator.layout.blobs / "blake3" / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)


def test_every_round_waits_for_the_disk_as_often(coordinator: Coordinator, counted: Counted) -> None:
    make_all_folders(coordinator)
    coordinator.open_round(rounds=ROUNDS)
    play_a_round(coordinator)  # with it everybody's folders are made
    counted.count(os, "fsync")
    counted.count(Database, "transaction")
    for _ in range(ROUNDS - 2):
        counted.taken()
        play_a_round(coordinator)
        waits = counted.taken()
        # opened, contributions, sealed, closed; every delta and the new model
        assert waits["transaction"] == len(NAMES) + 3
        assert waits["fsync"] <= SYNCS_OF_A_BLOB * (len(NAMES) + 1)


def test_without_a_stop_rule_no_measurement_is_read(coordinator: Coordinator, counted: Counted) -> None:
    coordinator.open_round(rounds=ROUNDS)
    counted.count(Database, "metrics_of")
    counted.count(Database, "metrics")
    play_a_round(coordinator)
    assert set(counted.taken().values()) == {0}


def test_with_a_stop_rule_each_rounds_measurements_are_read_once(coordinator: Coordinator, counted: Counted) -> None:
    coordinator.open_round(rounds=ROUNDS, stop={"patience_rounds": 50})
    counted.count(Database, "metrics_of")
    for _ in range(ROUNDS - 1):
        counted.taken()
        play_a_round(coordinator)
        assert counted.taken()["metrics_of"] == 1


def test_the_blob_folder_is_not_walked_at_each_closing(coordinator: Coordinator, counted: Counted) -> None:
    coordinator.open_round(rounds=ROUNDS)
    play_a_round(coordinator)
    counted.count(type(coordinator.blobs), "list")
    play_a_round(coordinator)
    assert counted.taken()["list"] == 0


# --- one answer a round ------------------------------------------------------------------------------------------------


def follow(coordinator: Coordinator, from_index: int) -> tuple[threading.Thread, list[LedgerSlice]]:
    found: list[LedgerSlice] = []
    ask = lambda: found.append(coordinator.ledger.slice(from_index, max_bytes=2**20, wait_seconds=30))  # noqa: E731
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, found


def test_contributions_closing_and_the_next_opening_come_in_one_answer(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 30.0)
    coordinator.open_round(rounds=ROUNDS)
    thread, found = follow(coordinator, coordinator.state.size)
    play_a_round(coordinator)
    thread.join(20)
    kinds = [parse(envelope).kind for envelope in found[0].envelopes]
    assert kinds == [Kind.CONTRIBUTION] * len(NAMES) + [Kind.ROUND_CLOSED, Kind.ROUND_OPENED]


def test_contributions_alone_come_a_moment_later(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    coordinator.open_round()
    thread, found = follow(coordinator, coordinator.state.size)
    coordinator["north"].contribute()
    thread.join(20)
    assert [parse(envelope).kind for envelope in found[0].envelopes] == [Kind.CONTRIBUTION]


def test_who_does_not_wait_gets_contributions_at_once(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 3600.0)
    coordinator.open_round()
    size = coordinator.state.size
    coordinator["north"].contribute()
    assert len(coordinator.ledger.slice(size, max_bytes=2**20, wait_seconds=0).envelopes) == 1


def test_the_newest_entries_are_served_from_memory_as_they_stand_in_the_database(
    coordinator: Coordinator, counted: Counted
) -> None:
    first = coordinator.state.size
    coordinator.open_round()
    stored = coordinator.envelopes()
    counted.count(Database, "envelopes")
    for start in range(first, len(stored)):
        whole = coordinator.ledger.slice(start, max_bytes=2**20, wait_seconds=0)
        assert whole.envelopes == tuple(stored[start:])
        one = coordinator.ledger.slice(start, max_bytes=1, wait_seconds=0)
        assert one.envelopes == (stored[start],)
    assert counted.taken()["envelopes"] == 0


def test_what_memory_no_longer_holds_is_read_from_the_database(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAIL_ENTRIES", 2)
    coordinator.open_round()
    stored = coordinator.envelopes()
    found = [coordinator.ledger.slice(start, max_bytes=2**20, wait_seconds=0).envelopes for start in range(len(stored))]
    assert found == [tuple(stored[start:]) for start in range(len(stored))]
