"""The two listeners: their addresses, and the one for strangers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from common.clock import ManualClock, SystemClock
from common.errors import (
    CoordinatorUnreachable,
    InvitationUsed,
    PortInUse,
    TooManyRequests,
    UnsupportedProtocol,
    UsageError,
)
from common.wire import convert
from common.wire.channel import enrolment_channel
from common.wire.errors import rpc_errors
from common.wire.messages import EnrolmentRequest
from common.wire.session import diagnose, enrol
from common.wire.v1 import enrolment_pb2_grpc
from coordinator.api.limits import EnrolmentLimits
from coordinator.api.server import ENROLMENT_IDLE_SECONDS
from tests.support.api import CONSORTIUM, LOOPBACK, Consortium, Scene, listening, until


@pytest.mark.parametrize("listener", ["work_address", "enrolment_address"])
def test_a_port_in_use_is_named_and_nothing_listens(consortium: Consortium, listener: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listeners = consortium.listeners(replace(LOOPBACK, **{listener: address}))
        with pytest.raises(PortInUse, match=rf"The (work|enrolment) listener cannot have {address}: it is taken"):
            listeners.start()


def test_two_coordinators_never_share_a_port(consortium: Consortium) -> None:
    with listening(consortium) as (_, addresses):
        second = consortium.listeners(replace(LOOPBACK, work_address=addresses.work))
        with pytest.raises(PortInUse, match=rf"The work listener cannot have {addresses.work}"):
            second.start()


def test_an_address_that_is_none_is_named(consortium: Consortium) -> None:
    with pytest.raises(UsageError, match="'nowhere' is not an address, expected host:port"):
        consortium.listeners(replace(LOOPBACK, work_address="nowhere")).start()


def test_stopping_ends_calls_that_wait(consortium: Consortium) -> None:
    with listening(consortium) as (listeners, addresses), consortium.session(addresses, "north") as north:
        future = north.stubs().work.Follow.future(convert.follow_request_to_wire(0, wait_seconds=30))
        until(lambda: len(listeners._open_calls) == 1)
        listeners.stop(grace=0)
        with pytest.raises(CoordinatorUnreachable), rpc_errors():
            raise future.exception(timeout=30)


REQUEST = EnrolmentRequest("invitation-1", b"s" * 32, b"csr", b"k" * 32, b"p" * 64)


def test_an_invitation_is_redeemed_without_a_certificate(scene: Scene) -> None:
    ca = scene.consortium.authority.certificate_pem
    enrolment = enrol(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca, request=REQUEST)
    assert (enrolment.certificate_pem, enrolment.roster_index) == ("-----BEGIN CERTIFICATE-----\n", 7)
    assert scene.ports.desk.offers[0].secret == b"s" * 32


def test_a_used_invitation_is_refused_with_advice(scene: Scene) -> None:
    scene.ports.desk.failure = InvitationUsed("Invitation invitation-1 was redeemed with other keys.")
    ca = scene.consortium.authority.certificate_pem
    with pytest.raises(InvitationUsed, match="was redeemed with other keys") as error:
        enrol(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca, request=REQUEST)
    assert error.value.fix == InvitationUsed.default_fix


def test_the_enrolment_listener_knows_no_other_service(scene: Scene) -> None:
    ca = scene.consortium.authority.certificate_pem
    with enrolment_channel(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca) as channel:
        report = channel.unary_unary("/llmasos.v1.Work/Report")
        with pytest.raises(UnsupportedProtocol, match="Expected a call that the coordinator knows"), rpc_errors():
            report(b"")


def test_strangers_who_call_too_often_are_refused(consortium: Consortium) -> None:
    limits = EnrolmentLimits(calls_per_second_per_address=0.0001, calls_at_once_per_address=2)
    with listening(consortium, replace(LOOPBACK, enrolment_limits=limits)) as (_, addresses):
        ca = consortium.authority.certificate_pem
        with enrolment_channel(addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca) as channel:
            stub = enrolment_pb2_grpc.EnrolmentStub(channel)
            message = convert.enrolment_request_to_wire(REQUEST)
            stub.Enrol(message)
            stub.Enrol(message)
            with pytest.raises(TooManyRequests, match=r"Address 127\.0\.0\.1: expected at most 0\.0001 "), rpc_errors():
                stub.Enrol(message)


def test_strangers_who_send_nothing_are_soon_sent_away(consortium: Consortium) -> None:
    clock = ManualClock(SystemClock().now())
    consortium.clock = clock
    end = threading.Event()

    def nothing() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    with listening(consortium) as (listeners, addresses):
        ca = consortium.authority.certificate_pem
        with enrolment_channel(addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca) as channel:
            call = channel.stream_unary("/llmasos.v1.Enrolment/Enrol").future(nothing())
            until(lambda: len(listeners._strangers) == 1)
            clock.advance(seconds=ENROLMENT_IDLE_SECONDS + 1)
            until(lambda: listeners.sweep() > 0 or call.done())
            with pytest.raises(CoordinatorUnreachable, match="broke off, CANCELLED"), rpc_errors():
                raise call.exception(timeout=30)
            end.set()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("north", "ok", "This certificate is one that the roster names."),
        ("stranger", "unknown-certificate", "No active member holds certificate"),
    ],
)
def test_a_refused_certificate_is_diagnosed(scene: Scene, name: str, code: str, message: str) -> None:
    pem, ca = scene.consortium.tls(name).certificate.read_bytes(), scene.consortium.authority.certificate_pem
    found = diagnose(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca, certificate_pem=pem)
    assert found.code == code
    assert found.message.startswith(message)
    assert found.coordinator_time.endswith("Z")


@pytest.mark.parametrize(("pem", "code"), [(b"no certificate", "malformed-message"), (None, "unknown-certificate")])
def test_what_is_no_members_certificate_is_diagnosed(scene: Scene, pem: bytes | None, code: str) -> None:
    ca = scene.consortium.authority.certificate_pem
    found = diagnose(scene.addresses.enrolment, consortium=CONSORTIUM, ca_pem=ca, certificate_pem=pem or ca)
    assert found.code == code
