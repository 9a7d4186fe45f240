"""Follow as witnesses meet it: checkpoints and cosignatures travel with it, and polls end early for openings alone."""

from __future__ import annotations

import time

import pytest

from common.errors import BadSignature, MalformedMessage
from common.wire import convert
from common.wire.errors import rpc_errors
from common.wire.messages import Cosignature, Proposal
from common.wire.v1 import work_pb2
from tests.support.api import Scene, until

LONG = 30.0
"""Seconds that a poll would wait; a test that waits for it fails by its own time."""
SIGNED = Cosignature(3, bytes(range(72)))


def test_a_reply_brings_the_newest_checkpoint_and_what_a_majority_saw(scene: Scene) -> None:
    scene.ports.ledger.append(b"zero")
    scene.ports.witnesses.covered = 7
    scene.ports.desk.open = (Proposal(b"{}", "2026-01-01T00:00:00.000Z", 2),)
    entries = scene.session("north").follow(from_index=0, wait_seconds=0)
    assert entries.checkpoint == scene.ports.log.newest().encode()
    assert entries.cosigned == (b"note 7",)
    assert entries.open_proposals == 1


def test_what_the_caller_knows_of_is_not_shown_again(scene: Scene) -> None:
    scene.ports.witnesses.covered = 7
    north = scene.session("north")
    assert north.follow(from_index=0, wait_seconds=0, cosigned_size=6).cosigned == (b"note 7",)
    for known in (7, 8, 2**53 - 1):
        assert north.follow(from_index=0, wait_seconds=0, cosigned_size=known).cosigned == ()


def test_a_cosignature_is_taken_as_the_callers_own(scene: Scene) -> None:
    scene.session("north").follow(from_index=0, wait_seconds=0, cosignature=SIGNED)
    scene.session("north").follow(from_index=0, wait_seconds=0)
    assert scene.ports.witnesses.taken == [("north", SIGNED)]


def test_a_cosignature_that_is_refused_ends_that_call_with_the_reason(scene: Scene) -> None:
    scene.ports.witnesses.refusal = BadSignature("The cosignature of north does not verify.", "Follow the ledger.")
    north = scene.session("north")
    with pytest.raises(BadSignature, match=r"The cosignature of north does not verify\.") as error:
        north.follow(from_index=0, wait_seconds=LONG, cosignature=SIGNED)
    assert error.value.fix == "Follow the ledger."
    assert north.follow(from_index=0, wait_seconds=0).ledger_size == 0


@pytest.mark.parametrize("size", [0, 71, 73])
def test_a_cosignature_of_another_length_is_malformed(scene: Scene, size: int) -> None:
    north = scene.session("north")
    request = work_pb2.FollowRequest(cosignature=work_pb2.Cosignature(size=3, signature=bytes(size)))
    with (
        pytest.raises(MalformedMessage, match=rf"Cosignature\.signature: expected 72 bytes, got {size}\."),
        rpc_errors(north.address),
    ):
        north.stubs().work.Follow(request)
    assert scene.ports.witnesses.taken == []


def test_a_poll_ends_early_when_an_opening_is_newly_covered(scene: Scene) -> None:
    started = time.monotonic()
    call = (
        scene.session("north")
        .stubs()
        .work.Follow.future(convert.follow_request_to_wire(0, wait_seconds=LONG, cosigned_size=5))
    )
    until(lambda: len(scene.listeners._open_calls) == 1)
    scene.ports.witnesses.opening, scene.ports.witnesses.covered = 5, 6
    scene.ports.ledger.wake()
    entries = convert.entries_from_wire(call.result(timeout=20), from_index=0)
    assert (entries.envelopes, entries.cosigned) == ((), (b"note 6",))
    assert time.monotonic() - started < LONG / 2


def test_a_poll_goes_on_for_a_cosignature_that_covers_no_opening(scene: Scene) -> None:
    call = (
        scene.session("north")
        .stubs()
        .work.Follow.future(convert.follow_request_to_wire(0, wait_seconds=LONG, cosigned_size=5))
    )
    until(lambda: len(scene.listeners._open_calls) == 1)
    for covered in range(1, 60):
        scene.ports.witnesses.covered = covered
        scene.ports.ledger.wake()
    assert not call.done()
    scene.ports.ledger.append(b"zero")
    entries = convert.entries_from_wire(call.result(timeout=20), from_index=0)
    assert (entries.envelopes, entries.cosigned) == ((b"zero",), (b"note 59",))


def test_who_left_gets_checkpoints_and_no_entry_beyond_what_it_may_read(scene: Scene) -> None:
    for number in range(5):
        scene.ports.ledger.append(b"%d" % number)
    scene.ports.ledger.last_for["north"] = 2
    scene.ports.witnesses.covered, scene.ports.log.size = 5, 5
    north = scene.session("north")
    scene.ports.members.leave("north")
    entries = north.follow(from_index=0, wait_seconds=0)
    assert (entries.envelopes, entries.ledger_size) == ((b"0", b"1", b"2"), 3)
    assert entries.checkpoint == scene.ports.log.newest().encode()
    assert entries.cosigned == (b"note 5",)
