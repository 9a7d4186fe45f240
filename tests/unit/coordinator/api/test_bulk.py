"""The bulk listener under callers that keep to no rule, that are too many, too slow or no longer members; and its end."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from pydantic import ValidationError

from common.blobs.reference import CHUNK_BYTES
from common.clock import ManualClock, SystemClock
from common.errors import (
    CertificateExpired,
    InternalError,
    LLMasOSError,
    MalformedMessage,
    PortInUse,
    UnknownCertificate,
    UsageError,
)
from common.identity.keys import TlsKey
from common.wire.bulk.line import MOST_FRAME_BYTES, Frame, LineBroken
from common.wire.errors import rpc_errors
from common.wire.framing import frame_put
from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2
from coordinator.api import bulk
from coordinator.api.bulk import BulkContext
from coordinator.config import Listen
from participant.config import TransferSettings
from tests.support.api import REPORT, WITH_BULK, Consortium, Scene, listening, until
from tests.support.bulk import (
    SOON,
    UNKNOWN,
    Frames,
    Message,
    answer,
    asked,
    begun,
    call,
    data,
    get,
    header,
    line_of,
    listener_of,
    nobody_holds_a_place,
    opened,
    say,
    to_come,
)


@pytest.fixture
def scene(consortium: Consortium) -> Iterator[Scene]:
    """`north` and `ops` in the roster, all three listeners."""
    with opened(consortium) as made:
        yield made


# --- calls as they should be ----------------------------------------------------------------------------------------------


def test_a_connection_carries_calls_one_after_the_other(scene: Scene) -> None:
    there, coming = scene.consortium.blob(b"there", "north"), begun(scene.consortium, scene.session("north"), b"new")
    with line_of(scene) as line:
        for _ in range(2):
            say(line, call(b"Get", get(there)))
            assert data(answer(line)) == [b"there"]
        say(line, call(b"Put", header(coming), frame_put(Piece(0, 0, b"new"))))
        [reply] = answer(line)
    assert blobs_pb2.PutResponse.FromString(reply) == blobs_pb2.PutResponse(chunks_stored=1, complete=True)
    assert scene.consortium.store.path(coming).read_bytes() == b"new"
    until(lambda: nobody_holds_a_place(scene))


@pytest.mark.parametrize("most", [0, 2**21])
def test_pieces_are_of_the_bulk_protocols_size_whatever_is_asked_for(scene: Scene, most: int) -> None:
    ref = scene.consortium.blob(bytes(CHUNK_BYTES), "north")
    with line_of(scene) as line:
        say(line, call(b"Get", get(ref, most_piece_bytes=most)))
        assert {len(piece) for piece in data(answer(line))} == {256 * 1024}


def test_the_work_listener_names_the_port(scene: Scene) -> None:
    assert scene.addresses.bulk == f"127.0.0.1:{scene.session('north')._ask_for_bulk()}"


def test_a_forwarded_port_is_named_in_its_place(consortium: Consortium) -> None:
    forwarded = replace(WITH_BULK, public_bulk_port=17445)
    with listening(consortium, forwarded) as (_, addresses), consortium.session(addresses, "north") as north:
        assert north._ask_for_bulk() == 17445


def test_without_a_bulk_listener_there_is_no_port(consortium: Consortium) -> None:
    with listening(consortium) as (_, addresses), consortium.session(addresses, "north") as north:
        assert (addresses.bulk, north._ask_for_bulk()) == (None, 0)


def test_a_bulk_port_in_use_is_named_and_nothing_listens(consortium: Consortium) -> None:
    with listening(consortium, WITH_BULK) as (_, addresses):
        second = consortium.listeners(replace(WITH_BULK, bulk_address=addresses.bulk))
        with pytest.raises(PortInUse, match=rf"The bulk listener cannot have {addresses.bulk}: it is taken"):
            second.start()


# --- what gRPC refuses is refused here, and in the same words -------------------------------------------------------------


def corrupt(scene: Scene) -> list[Message]:
    pieces = [frame_put(Piece(0, at, b"!" * 2**18)) for at in range(0, CHUNK_BYTES, 2**18)]
    return [header(to_come(scene)), *pieces]


WILD_CALLS: dict[str, tuple[bytes, Callable[[Scene], list[Message]]]] = {
    "a put without a message": (b"Put", lambda scene: []),
    "a put that is no message": (b"Put", lambda scene: [b"\xff"]),
    "a put without its header": (b"Put", lambda scene: [frame_put(Piece(0, 0, b"x"))]),
    "a put of nothing": (b"Put", lambda scene: [b""]),
    "a put that was not begun": (b"Put", lambda scene: [header(UNKNOWN)]),
    "a header in place of a piece": (b"Put", lambda scene: [header(to_come(scene))] * 2),
    "noise in place of a piece": (b"Put", lambda scene: [header(to_come(scene)), b"\x1a\xff"]),
    "a piece beyond the blob": (b"Put", lambda scene: [header(to_come(scene)), frame_put(Piece(2, 0, b"x"))]),
    "a piece beyond the chunk": (
        b"Put",
        lambda scene: [header(to_come(scene)), frame_put(Piece(0, CHUNK_BYTES, b"x"))],
    ),
    "half a chunk": (b"Put", lambda scene: [header(to_come(scene)), frame_put(Piece(0, 0, b"ab"))]),
    "a corrupt chunk": (b"Put", corrupt),
    "a get without a message": (b"Get", lambda scene: []),
    "a get that is no message": (b"Get", lambda scene: [b"\xff"]),
    "a get of nothing": (b"Get", lambda scene: [b""]),
    "a get beyond the blob": (b"Get", lambda scene: [get(scene.consortium.blob(b"content", "north"), 0, 2)]),
    "a get of another's blob": (b"Get", lambda scene: [get(UNKNOWN)]),
}


@pytest.mark.parametrize("what", WILD_CALLS)
def test_what_is_refused_is_refused_as_grpc_refuses_it(scene: Scene, what: str) -> None:
    method, made = WILD_CALLS[what]
    messages = made(scene)
    with line_of(scene) as line, pytest.raises(LLMasOSError) as here:
        asked(line, call(method, *messages))
    channel = scene.session("north").stubs().channel
    path = f"/llmasos.v1.Blobs/{method.decode()}"
    with pytest.raises(LLMasOSError) as there, rpc_errors():
        list(channel.stream_stream(path)(iter(messages), timeout=30))  # to gRPC a reply is a stream of one
    assert (here.value.code, here.value.message, here.value.fix) == (
        there.value.code,
        there.value.message,
        there.value.fix,
    )
    until(lambda: nobody_holds_a_place(scene))


WILD_FRAMES: dict[str, tuple[Frames, str]] = {
    "a message before the call": (
        [(Frame.MESSAGE, b"Get")],
        r"A bulk connection begins with a CALL of Get or Put, got MESSAGE with 3 bytes\.",
    ),
    "an unknown method": ([(Frame.CALL, b"Begin")], "a CALL of Get or Put, got CALL with 5 bytes"),
    "a method with more behind it": ([(Frame.CALL, b"Get" + bytes(20))], "got CALL with 23 bytes"),
    "no method": ([(Frame.CALL, b"")], "got CALL with 0 bytes"),
    "a call in a call": (
        [(Frame.CALL, b"Put"), (Frame.CALL, b"Put")],
        r"A frame of the bulk protocol: expected MESSAGE or END, got CALL\.",
    ),
    "an error from the caller": ([(Frame.CALL, b"Get"), (Frame.ERROR, b"")], "expected MESSAGE or END, got ERROR"),
    "more than a frame may hold": (
        [(Frame.CALL, b"Put"), (Frame.MESSAGE, bytes(MOST_FRAME_BYTES + 1))],
        "expected at most 524,288 bytes, got 524,289",
    ),
}


@pytest.mark.parametrize("what", WILD_FRAMES)
def test_frames_out_of_order_are_refused_and_the_connection_ends(scene: Scene, what: str) -> None:
    frames, message = WILD_FRAMES[what]
    with line_of(scene) as line:
        say(line, frames)
        with pytest.raises(MalformedMessage, match=message):
            answer(line)
        with pytest.raises(LineBroken, match="closed"):
            line.receive()
    until(lambda: nobody_holds_a_place(scene))


def test_a_second_message_after_a_get_is_refused_once_its_pieces_came(scene: Scene) -> None:
    request = get(scene.consortium.blob(b"content", "north"))
    with line_of(scene) as line:
        say(line, call(b"Get", request, request))
        assert line.receive()[0] is Frame.MESSAGE
        with pytest.raises(MalformedMessage, match=r"expected END after its one message, got another\."):
            answer(line)


def test_a_bug_reaches_nobody_but_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise KeyError("password of the database")

    monkeypatch.setattr(scene.ports.access, "check_read", failing)
    with line_of(scene) as line, pytest.raises(InternalError) as error:
        asked(line, call(b"Get", get(UNKNOWN)))
    assert error.value.message == "The coordinator failed at this call; its log has the detail."
    assert "password of the database" in caplog.text


def test_a_bug_of_the_listener_ends_one_connection(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = get(scene.consortium.blob(b"content", "north"))

    def failing(reply: object) -> tuple[bytes, ...]:
        raise KeyError("password of the database")

    with monkeypatch.context() as spoiled, line_of(scene) as line:
        spoiled.setattr(bulk, "_parts", failing)
        say(line, call(b"Get", request))
        with pytest.raises(LineBroken, match="closed"):
            answer(line)
    until(lambda: nobody_holds_a_place(scene))
    assert "bug in a bulk connection" in caplog.text
    with line_of(scene) as line:
        assert data(asked(line, call(b"Get", request))) == [b"content"]


# --- who calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stranger", "north"])
def test_whom_the_roster_does_not_name_is_refused_as_on_the_work_listener(scene: Scene, name: str) -> None:
    ref = scene.consortium.blob(b"content", name)
    scene.ports.members.revoke("north")
    with line_of(scene, name) as line, pytest.raises(UnknownCertificate) as here:
        asked(line, call(b"Get", get(ref)))
    with pytest.raises(UnknownCertificate) as there:
        scene.session(name).report(REPORT)
    assert here.value.message == there.value.message
    assert f"as spiffe://hospitals/institution/{name}." in here.value.message


def test_a_member_that_is_revoked_between_two_calls_is_refused_at_the_second(scene: Scene) -> None:
    request = get(scene.consortium.blob(b"content", "north"))
    with line_of(scene) as line:
        assert data(asked(line, call(b"Get", request))) == [b"content"]
        scene.ports.members.revoke("north")
        say(line, call(b"Get", request))
        with pytest.raises(UnknownCertificate):
            answer(line)


def test_a_certificate_that_expired_under_an_open_connection_is_refused(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    with opened(consortium) as scene, line_of(scene) as line:
        clock.advance(seconds=31 * 86_400)
        say(line, call(b"Get", get(UNKNOWN)))
        with pytest.raises(
            CertificateExpired, match=r"The certificate of spiffe://hospitals/institution/north has expired"
        ):
            answer(line)


@pytest.mark.parametrize("way", ["up", "down"])
def test_revoking_ends_a_call_in_progress(scene: Scene, way: str) -> None:
    ref = to_come(scene) if way == "up" else scene.consortium.blob(bytes(16 * CHUNK_BYTES), "north")
    with line_of(scene) as line:
        say(line, call(b"Put", header(ref))[:-1] if way == "up" else call(b"Get", get(ref, 0, 16)))
        until(lambda: scene.listeners.open_calls == 1)
        scene.ports.members.revoke("north")
        started = time.monotonic()
        scene.listeners.sweep()
        with pytest.raises((LineBroken, UnknownCertificate), match=r"(closed|reset|No active member holds)"):
            answer(line)
        until(lambda: nobody_holds_a_place(scene))
        assert time.monotonic() - started < SOON


def test_a_caller_without_a_readable_alternative_name_is_nobody(consortium: Consortium) -> None:
    """An X.400 address: cryptography has an exception of its own for it."""
    key, now = TlsKey.generate(), consortium.clock.now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private_key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x02\xa3\x00"), False)
        .sign(key.private_key, hashes.SHA256())
    )
    line: Any = SimpleNamespace(peer_certificate=certificate.public_bytes(Encoding.DER))
    identity = BulkContext(line, "ipv4:127.0.0.1:1").auth_context()
    assert identity["peer_spiffe_id"] == []


def test_a_context_names_its_caller_as_grpcs_does(consortium: Consortium) -> None:
    pem = consortium.tls("north").certificate.read_bytes()
    line: Any = SimpleNamespace(peer_certificate=ssl.PEM_cert_to_DER_cert(pem.decode()))
    identity = BulkContext(line, "ipv4:127.0.0.1:1").auth_context()
    assert identity == {"peer_spiffe_id": [b"spiffe://hospitals/institution/north"], "x509_pem_cert": [pem]}


# --- configuration --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "given", "address"),
    [
        ("127.0.0.1:7443", "auto", "127.0.0.1:7445"),
        ("0.0.0.0:443", "auto", "0.0.0.0:445"),
        ("127.0.0.1:0", "auto", "127.0.0.1:0"),
        ("[::]:7443", "auto", "[::]:7445"),
        ("127.0.0.1:7443", "off", None),
        ("127.0.0.1:7443", "10.0.0.7:9000", "10.0.0.7:9000"),
        ("127.0.0.1:7443", "[::1]:9000", "[::1]:9000"),
    ],
)
def test_where_the_bulk_listener_is_follows_from_the_work_listener_unless_told(
    work: str, given: str, address: str | None
) -> None:
    assert Listen(work=work, bulk=given).bulk_address == address


def test_the_bulk_listener_is_there_unless_told() -> None:
    assert (Listen().bulk_address, Listen().public_bulk_port) == ("127.0.0.1:7445", None)


@pytest.mark.parametrize("given", ["nowhere", "127.0.0.1:65536"])
def test_a_bulk_address_that_is_none_is_named(consortium: Consortium, given: str) -> None:
    listeners = consortium.listeners(replace(WITH_BULK, bulk_address=given))
    with pytest.raises(UsageError, match=rf"'{given}' is not an address, expected host:port"):
        listeners.start()


@pytest.mark.parametrize("port", [0, 65_536])
def test_a_port_that_agents_cannot_dial_is_no_setting(port: int) -> None:
    with pytest.raises(ValidationError, match=r"public_bulk_port\n.*(greater|less) than or equal to (1|65535)"):
        Listen(public_bulk_port=port)
    with pytest.raises(ValidationError, match=r"bulk.*\n.*(greater|less) than or equal to (1|65535)"):
        TransferSettings(bulk=port)


@pytest.mark.parametrize("given", ["auto", "off", 1, 65_535])
def test_a_participant_takes_the_port_that_it_is_told(given: Any) -> None:
    assert TransferSettings(bulk=given).bulk == given


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_the_bulk_listener_takes_ipv6(consortium: Consortium) -> None:
    settings = replace(WITH_BULK, bulk_address="[::1]:0")
    with listening(consortium, settings) as (listeners, addresses):
        scene = Scene(consortium, listeners, addresses)
        host, _, port = (addresses.bulk or "").rpartition(":")
        assert host == "[::1]"
        with socket.create_connection(("::1", int(port))):
            until(lambda: dict(listener_of(scene)._from) == {"::/64": 1})
