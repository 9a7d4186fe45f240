"""What goes back to a restored coordinator, and what never does, whatever it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.blobs.reference import BlobRef
from common.wire.messages import Presented, Wanted
from tests.support.blobs import put_blob
from tests.support.coordinators import Coordinator
from tests.support.keepers import Keeper


class Asking:
    """A coordinator that asks for what a test says, and for nothing after that."""

    address = "127.0.0.1:7443"

    def __init__(self, *replies: Wanted) -> None:
        self.replies, self.presented, self.uploaded = list(replies), list[Presented](), list[BlobRef]()

    def present(self, presented: Presented) -> Wanted:
        self.presented.append(presented)
        return self.replies.pop(0) if self.replies else Wanted(True, 10**6)

    def upload(self, reader: object, purpose: object, options: object) -> bool:
        self.uploaded.append(reader.ref)  # type: ignore[attr-defined]
        return True


@pytest.fixture
def north(coordinator: Coordinator, tmp_path: Path) -> Iterator[Keeper]:
    """North contributed to the open round, and so did east."""
    coordinator.open_round(rounds=4)
    for name in ("north", "east"):
        coordinator[name].contribute()
    keeper = Keeper(coordinator, "north", tmp_path)
    keeper.follow()
    yield keeper
    keeper.close()


def asked(keeper: Keeper, *replies: Wanted) -> Asking:
    session = Asking(*replies)
    object.__setattr__(keeper.handing_back._ports, "session", session)
    assert keeper.hand_back() is False
    return session


def test_own_deltas_and_models_go_and_what_is_another_ones_or_nobodys_does_not(
    coordinator: Coordinator, north: Keeper
) -> None:
    run = coordinator.run
    contributions = run.rounds[0].contributions
    own, others = (contributions[name].contribution.blobs["delta"] for name in ("north", "east"))
    north.take(others)
    secret, unknown = put_blob(north.blobs, b"a residual"), BlobRef(algorithm="blake3", size=7, root="ab" * 32)
    session = asked(north, Wanted(True, north.mirror.state.size, (own, run.model, others, secret, unknown)))
    assert session.uploaded == [own, run.model]
    assert session.presented[1].lacking == (others, secret, unknown)
    booked = [each for each in north.journal.egress() if each.kind == "recovery"]
    assert all(each.receiver == "127.0.0.1:7443" for each in booked)


def test_metrics_go_only_of_own_contributions(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.open_round(rounds=4, metrics_visibility="institution")
    for name in ("north", "east"):
        coordinator[name].contribute()
    keeper = Keeper(coordinator, "north", tmp_path)
    keeper.follow()
    contributions = coordinator.run.rounds[0].contributions
    own, others = (contributions[name].place.digest for name in ("north", "east"))
    session = asked(keeper, Wanted(True, keeper.mirror.state.size, (), (own, others, "ab" * 32)))
    assert [digest for digest, _ in session.presented[1].metrics] == [own]
    keeper.close()


def test_one_that_asks_for_the_same_entries_again_is_left_until_later(north: Keeper) -> None:
    session = asked(north, Wanted(True, 2), Wanted(True, 2), Wanted(True, 2))
    assert len(session.presented) == 2
    assert session.presented[1].first_index == 2
    assert sum(each.bytes for each in north.journal.egress() if each.kind == "recovery") > 0


def test_one_that_follows_gets_nothing(north: Keeper) -> None:
    session = Asking(Wanted(False, 3, (BlobRef(algorithm="blake3", size=7, root="ab" * 32),)))
    object.__setattr__(north.handing_back._ports, "session", session)
    assert north.hand_back() is True
    assert len(session.presented) == 1
