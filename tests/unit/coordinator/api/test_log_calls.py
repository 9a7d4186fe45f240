"""The Log service on both listeners: for members, and for witnesses that are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.errors import MalformedMessage, TooManyRequests, UnknownObject
from common.wire.channel import enrolment_channel
from common.wire.errors import rpc_errors
from common.wire.session import log_head
from common.wire.v1 import log_pb2, log_pb2_grpc
from coordinator.api.limits import EnrolmentLimits
from coordinator.api.server import ListenerSettings
from tests.support.api import CONSORTIUM, Consortium, Scene, listening


def stranger(scene: Scene, call: Callable[[Any], Any]) -> Any:
    """A call on the enrolment listener, without a certificate."""
    address, ca_pem = scene.addresses.enrolment, scene.consortium.authority.certificate_pem
    with enrolment_channel(address, consortium=CONSORTIUM, ca_pem=ca_pem) as channel, rpc_errors(address):
        return call(log_pb2_grpc.LogStub(channel))


def test_a_member_asks_for_head_and_receipt(scene: Scene) -> None:
    north = scene.session("north")
    head = north.head(old_size=2)
    assert head.checkpoint.startswith(scene.ports.log.newest().encode())
    assert head.consistency == (bytes(32),)
    assert north.receipt(2).startswith(b"receipt 2")
    assert b"hospitals.llmasos/north" in head.checkpoint
    assert b"hospitals.llmasos/north" in north.receipt(2)


def test_a_stranger_asks_on_the_enrolment_listener_and_reads_no_institutions_name(scene: Scene) -> None:
    ca_pem = scene.consortium.authority.certificate_pem
    head = log_head(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca_pem, old_size=2)
    assert (head.checkpoint, head.consistency) == (scene.ports.log.newest().encode(), (bytes(32),))
    reply = stranger(scene, lambda log: log.Prove(log_pb2.ProveRequest(index=1)))
    assert reply.receipt == b"receipt 1\n" + scene.ports.log.newest().encode()


def test_what_is_beyond_the_tree_is_a_typed_error_on_both(scene: Scene) -> None:
    north = scene.session("north")
    with pytest.raises(UnknownObject, match=r"The log has 3 entries, so no tree of 4 is its beginning\."):
        north.head(old_size=4)
    with pytest.raises(UnknownObject, match=r"The log has 3 entries, so there is no entry 3\."):
        north.receipt(3)
    with pytest.raises(UnknownObject, match=r"so no tree of 9 is its beginning\."):
        stranger(scene, lambda log: log.Head(log_pb2.HeadRequest(old_size=9)))


def test_numbers_that_no_ledger_reaches_are_malformed(scene: Scene) -> None:
    for call in (
        lambda log: log.Head(log_pb2.HeadRequest(old_size=2**64 - 1)),
        lambda log: log.Prove(log_pb2.ProveRequest(index=2**53)),
    ):
        with pytest.raises(MalformedMessage, match=r"expected 0 to 9,007,199,254,740,991, got"):
            stranger(scene, call)


def test_strangers_are_counted_as_those_who_enrol_are(consortium: Consortium) -> None:
    limits = EnrolmentLimits(calls_at_once_per_address=2)
    settings = ListenerSettings("127.0.0.1:0", "127.0.0.1:0", enrolment_limits=limits)
    with listening(consortium, settings) as (listeners, addresses):
        scene = Scene(consortium, listeners, addresses)

        def often() -> None:
            for _ in range(60):
                stranger(scene, lambda log: log.Head(log_pb2.HeadRequest()))

        with pytest.raises(TooManyRequests, match=r"expected at most 2 calls a second, got more\."):
            often()
