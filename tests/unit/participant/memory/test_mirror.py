"""The participant's copy of the ledger: nothing is believed that does not follow, and what was believed stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import LedgerConflict
from common.ledger.heads import tree_of
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from tests.support.coordinators import Coordinator


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "journal.sqlite")) as made:
        yield made


def test_verified_entries_are_believed_and_kept(coordinator: Coordinator, journal: Journal) -> None:
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    mirror.admit(1, envelopes[1:])
    assert mirror.state.active_trainers == ("east", "north", "south")
    assert journal.ledger() == envelopes
    again = Mirror(journal, coordinator.genesis)
    assert again.state == mirror.state


def test_heads_of_every_size_are_known_also_after_a_restart(coordinator: Coordinator, journal: Journal) -> None:
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    assert mirror.head() == tree_of(envelopes[:1]).head()
    mirror.admit(1, envelopes[1:3])
    mirror.admit(3, envelopes[3:])
    for copy in (mirror, Mirror(journal, coordinator.genesis)):
        assert [copy.head(size) for size in range(len(envelopes) + 1)] == [
            tree_of(envelopes[:size]).head() for size in range(len(envelopes) + 1)
        ]
        assert copy.head() == copy.head(len(envelopes))
        with pytest.raises(IndexError):
            copy.head(len(envelopes) + 1)


def test_an_entry_that_breaks_a_rule_is_a_conflict_and_those_before_it_stay(
    coordinator: Coordinator, journal: Journal
) -> None:
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    spoiled = envelopes[3].replace(b'"sig":"', b'"sig":"A', 1)
    with pytest.raises(LedgerConflict, match=r"Entry 3 of the ledger breaks a rule: .* \(malformed-statement\)"):
        mirror.admit(1, [*envelopes[1:3], spoiled, *envelopes[4:]])
    assert mirror.state.size == 3
    assert mirror.head() == tree_of(envelopes[:3]).head()
    assert journal.ledger() == envelopes[:3]


def test_a_weight_that_the_plan_does_not_allow_is_a_conflict_too(coordinator: Coordinator, journal: Journal) -> None:
    record, north = coordinator.open_round(), coordinator["north"]
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    heavy = north.contribution(north.send(north.delta()), num_tokens=10**6)
    assert heavy.parent.digest == record.place.digest
    with pytest.raises(LedgerConflict, match=r"breaks a rule: num_tokens is 1,000,000, .* \(implausible-weight\)"):
        mirror.admit(1, [*envelopes[1:], heavy.envelope])
    assert mirror.state.size == len(envelopes)


def test_entries_must_begin_where_the_copy_ends(coordinator: Coordinator, journal: Journal) -> None:
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    with pytest.raises(LedgerConflict, match=r"Entries from index 2 came, expected from 1"):
        mirror.admit(2, envelopes[2:])
    assert journal.ledger() == envelopes[:1]


def test_a_journal_of_another_consortium_is_a_conflict(
    coordinator: Coordinator, journal: Journal, tmp_path: Path
) -> None:
    Mirror(journal, coordinator.genesis)
    other = Coordinator(tmp_path / "other", names=())
    other.close()
    with pytest.raises(LedgerConflict, match=r"genesis\.json is not the genesis of the journal beside it"):
        Mirror(journal, other.genesis)


def test_a_journal_that_was_changed_on_disk_is_a_conflict(coordinator: Coordinator, journal: Journal) -> None:
    envelopes = coordinator.envelopes()
    journal.keep([(0, "0", envelopes[0]), (1, "1", envelopes[2])])
    with pytest.raises(LedgerConflict, match=r"Entry 1 of the journal breaks a rule: .* \(wrong-parent\)"):
        Mirror(journal, coordinator.genesis)


def test_readers_wake_when_the_ledger_grows_and_not_before(coordinator: Coordinator, journal: Journal) -> None:
    mirror, envelopes = Mirror(journal, coordinator.genesis), coordinator.envelopes()
    assert mirror.wait_beyond(1, 0).size == 1
    sizes: list[int] = []
    reader = threading.Thread(target=lambda: sizes.append(mirror.wait_beyond(1, 30).size))
    reader.start()
    mirror.admit(1, envelopes[1:])
    reader.join(30)
    assert sizes == [len(envelopes)]


def test_readers_that_are_woken_go_on_without_news(coordinator: Coordinator, journal: Journal) -> None:
    mirror, waits = Mirror(journal, coordinator.genesis), threading.Event()
    sizes: list[int] = []

    def read() -> None:
        waits.set()
        sizes.append(mirror.wait_beyond(1, 3600).size)

    reader = threading.Thread(target=read)
    reader.start()
    assert waits.wait(30)
    while reader.is_alive():
        mirror.wake()
        reader.join(0.01)
    assert sizes == [1]


def test_a_wake_between_looking_and_waiting_is_not_lost(coordinator: Coordinator, journal: Journal) -> None:
    mirror = Mirror(journal, coordinator.genesis)
    looked = mirror.wakes
    mirror.wake()
    waiting = threading.Thread(target=lambda: mirror.wait_beyond(mirror.state.size, 60, wakes=looked), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
