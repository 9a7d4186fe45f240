"""Witnesses over Follow, with the coordinator's real parts behind the servicer: what each institution comes to know."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from common.ledger.heads import log_key
from common.ledger.notes import cosign, parse_note, read_checkpoint
from common.ledger.witnesses import cosigners, covered_size, may_act, witnesses_of
from common.wire.convert import entries_from_wire, follow_request_to_wire
from common.wire.messages import Cosignature, LedgerEntries
from coordinator.api.work import WorkPorts, WorkServicer
from coordinator.watching.inquiries import InquiryDesk
from tests.support.api import until
from tests.support.coordinators import Coordinator

NAMES = ("east", "north", "south")


class Call:
    """A call that goes on until its answer."""

    def __init__(self, member: Any) -> None:
        self.member = member

    def is_active(self) -> bool:
        return True

    def check(self) -> None:
        pass


class Wire:
    """The servicer, and who waits in it."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        inquiries = InquiryDesk(coordinator.ledger, coordinator.clock)
        ports = WorkPorts(
            coordinator.ledger,
            coordinator.log,
            coordinator.witnesses,
            coordinator.desk,
            coordinator.board,
            inquiries,
            coordinator.recovery,
        )
        self.servicer, self.pool = WorkServicer(ports), ThreadPoolExecutor(4)

    def follow(self, name: str, wait_seconds: float = 0.0, known: int = 0, sign: bool = False) -> LedgerEntries:
        """From the end of the ledger; a witness signs the newest checkpoint."""
        size, cosignature = self.coordinator.state.size, None
        if sign:
            newest, key = self.coordinator.log.newest(), self.coordinator[name].key
            note = cosign(newest, f"hospitals.llmasos/{name}", key, seconds=1)
            cosignature = Cosignature(size, note.signatures[-1].signature)
        request = follow_request_to_wire(size, wait_seconds=wait_seconds, cosignature=cosignature, cosigned_size=known)
        call: Any = Call(self.coordinator[name].member)
        return entries_from_wire(self.servicer.Follow(request, call), from_index=size)

    def waiting(self, name: str, known: int = 0) -> Future[LedgerEntries]:
        """The same in a thread, for half a minute."""
        return self.pool.submit(self.follow, name, 30.0, known)

    def covered(self, entries: LedgerEntries) -> int:
        """What a reply shows to a reader."""
        state, sizes = self.coordinator.state, dict[str, int]()
        for data in entries.cosigned:
            note = parse_note(data)
            head = read_checkpoint(note, log_key(state.genesis))
            sizes |= {name: max(head.size, sizes.get(name, 0)) for name in cosigners(note, witnesses_of(state))}
        return covered_size(sizes, len(witnesses_of(state)))


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Three witnesses; the first round is open."""
    coordinator = Coordinator(tmp_path / "home", names=())
    for name in NAMES:
        coordinator.enrol(name, ("trainer", "evaluator", "witness"))
    coordinator.open_round()
    made = Wire(coordinator)
    yield made
    made.pool.shutdown()
    coordinator.close()


def test_everybody_may_act_once_two_of_three_have_signed(wire: Wire) -> None:
    record = wire.coordinator.run.open_round
    assert record is not None
    opening = record.place.index
    polls = [wire.waiting(name) for name in NAMES]
    assert not any(poll.done() for poll in polls)
    assert wire.covered(wire.follow("north", sign=True)) == 0
    assert not any(poll.done() for poll in polls), "one of three tells nobody anything"
    own = wire.follow("south", sign=True)
    for entries in (own, *(poll.result(20) for poll in polls)):
        assert entries.envelopes == ()
        assert may_act(opening, wire.covered(entries), witnesses=3)
    assert len(wire.coordinator.database.checkpoints()) == 1


def test_who_knows_waits_on_and_a_third_signature_wakes_nobody(wire: Wire) -> None:
    wire.follow("north", sign=True)
    known = wire.covered(wire.follow("south", sign=True))
    poll = wire.waiting("north", known)
    wire.follow("east", sign=True)
    assert not poll.done()
    wire.coordinator["north"].contribute()
    entries = poll.result(20)
    assert len(entries.envelopes) == 1
    assert entries.cosigned == (), "nobody has signed more than is known"
    until(lambda: len(wire.coordinator.database.checkpoints()) == 1)


def test_after_a_restart_an_institution_still_learns_that_the_opening_is_covered(wire: Wire) -> None:
    wire.follow("north", sign=True)
    wire.follow("south", sign=True)
    wire.coordinator.restart()
    again = Wire(wire.coordinator)
    entries = again.follow("east", wait_seconds=30.0)
    assert again.covered(entries) == wire.coordinator.state.size
    again.pool.shutdown()
