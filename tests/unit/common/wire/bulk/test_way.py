"""Whether there is a bulk connection: what the coordinator says, what the network lets through, and what is done without."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import CoordinatorUnreachable, MalformedMessage, PortBlocked, UnknownCertificate, UnsupportedProtocol
from common.wire import convert
from common.wire.bulk import way as ways
from common.wire.bulk.way import BulkPort, BulkWay
from common.wire.channel import split_address
from common.wire.framing import add_blobs_to_server
from common.wire.session import Session
from common.wire.v1 import blobs_pb2
from tests.support.api import WITH_BULK, Consortium, Scene, listening
from tests.support.bulk import Contexts
from tests.support.networks import CuttingServer, TlsServer, unused_port

CONTENT = bytes(range(256)) * (4 * CHUNK_BYTES // 256) + b"tail"
WARNING = "no bulk connection"

Counted = Counter[tuple[str, str]]


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Code and reason of each."""
    return [(record.code, record.reason) for record in caplog.records if record.getMessage() == WARNING]  # type: ignore[attr-defined]


def fetch(session: Session, ref: BlobRef, ours: FolderBlobStore) -> None:
    """The blob comes, and is away again."""
    assert session.download(ref, ours, "north") is True
    assert ours.path(ref).read_bytes() == CONTENT
    ours.delete(ref)


def member(consortium: Consortium, address: str, bulk: BulkPort = "auto") -> Session:
    return Session(address, consortium.genesis, consortium.tls("north"), streams=2, bulk=bulk)


def never() -> int:
    raise AssertionError("the coordinator was asked")


def way(contexts: Contexts, ask: Callable[[], int], port: BulkPort = "auto", host: str = "127.0.0.1") -> BulkWay:
    pair = (contexts.key_pem, contexts.cert_pem)
    return BulkWay(f"{host}:7443", contexts.consortium.genesis, pair=lambda: pair, ask=ask, port=port)


# --- what the coordinator says --------------------------------------------------------------------------------------------


def test_the_port_that_the_coordinator_says_is_used(scene: Scene, ours: FolderBlobStore, calls: Counted) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    with member(scene.consortium, scene.addresses.work) as session:
        fetch(session, ref, ours)
    assert set(calls) == {("Get", "bulk")}


def test_a_coordinator_without_the_listener_is_asked_once(contexts: Contexts) -> None:
    said = iter([0])
    there = way(contexts, lambda: next(said))
    assert [there.blobs(None) for _ in range(3)] == [None] * 3


def test_a_coordinator_that_has_the_listener_later_is_found_later(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "TRY_AGAIN_SECONDS", 0.0)
    with listening(contexts.consortium, WITH_BULK) as (_, addresses):
        said = iter([0, split_address(addresses.bulk or "")[1]])
        there = way(contexts, lambda: next(said))
        assert there.blobs(None) is None
        assert there.blobs(None) is not None


def test_an_older_coordinator_gets_its_blobs_over_grpc_and_no_word_is_lost_about_it(
    consortium: Consortium,
    ours: FolderBlobStore,
    calls: Counted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Older:
        def __init__(self, server: Any) -> None:
            self._server = server

        def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
            del handlers["FindBulk"]
            self._server.add_generic_rpc_handlers(())
            self._server.add_registered_method_handlers(service, handlers)

    monkeypatch.setattr(
        "coordinator.api.server.add_blobs_to_server",
        lambda servicer, server: add_blobs_to_server(servicer, Older(server)),
    )
    with listening(consortium) as (_, addresses), member(consortium, addresses.work) as session:
        with pytest.raises(UnsupportedProtocol):
            session._ask_for_bulk()
        fetch(session, consortium.blob(CONTENT, "north"), ours)
    assert set(calls) == {("Get", "grpc")}
    assert warnings(caplog) == []


@pytest.mark.parametrize("port", [65_536, 2**32 - 1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(MalformedMessage, match=rf"port: expected .*65,?535, got {port:,}|port.*{port}"):
        convert.port_from_wire(blobs_pb2.FindBulkResponse(port=port))


@pytest.mark.parametrize(
    ("host", "dialled"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("a.example", "a.example")]
)
def test_the_coordinator_says_a_port_and_nothing_else(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch, host: str, dialled: str
) -> None:
    """It cannot send its members to other hosts."""
    asked_for: list[tuple[str, int]] = []

    def blocked(host: str, port: int, *_: object) -> socket.socket:
        asked_for.append((host, port))
        raise PortBlocked("nothing gets through here")

    monkeypatch.setattr(ways, "open_way", blocked)
    assert [field.name for field in blobs_pb2.FindBulkResponse.DESCRIPTOR.fields] == ["port"]
    assert way(contexts, lambda: 7445, host=host).blobs(None) is None
    assert asked_for == [(dialled, 7445)]


def test_a_member_that_may_not_ask_is_told(consortium: Consortium, ours: FolderBlobStore) -> None:
    consortium.tls("stranger")
    ref = consortium.blob(CONTENT)
    with listening(consortium, WITH_BULK) as (_, addresses):
        session = Session(addresses.work, consortium.genesis, consortium.tls("stranger"), streams=2)
        with session, pytest.raises(UnknownCertificate, match="No active member holds certificate"):
            session.download(ref, ours, "stranger")


# --- what this side was told ----------------------------------------------------------------------------------------------


def test_off_asks_nobody_and_connects_to_nothing(contexts: Contexts) -> None:
    assert way(contexts, never, "off").blobs(None) is None


def test_off_goes_over_grpc_though_there_is_a_listener(scene: Scene, ours: FolderBlobStore, calls: Counted) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    with member(scene.consortium, scene.addresses.work, "off") as session:
        fetch(session, ref, ours)
    assert set(calls) == {("Get", "grpc")}


def test_a_port_of_ones_own_is_not_asked_for(contexts: Contexts) -> None:
    with listening(contexts.consortium, WITH_BULK) as (_, addresses):
        there = way(contexts, never, split_address(addresses.bulk or "")[1])
        assert there.blobs(None) is not None


# --- what the network lets through ----------------------------------------------------------------------------------------


def test_a_closed_port_is_told_once_and_everything_goes_over_grpc(
    scene: Scene, ours: FolderBlobStore, calls: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    with unused_port() as closed, member(scene.consortium, scene.addresses.work, closed) as session:
        for _ in range(2):
            fetch(session, ref, ours)
    assert set(calls) == {("Get", "grpc")}
    [(code, reason)] = warnings(caplog)
    assert code == "port-blocked"
    assert f"127.0.0.1:{closed}" in reason


def test_a_closed_port_is_tried_again_when_time_has_passed(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(contexts.consortium, WITH_BULK) as (_, addresses), unused_port() as closed:
        said = iter([closed, closed, split_address(addresses.bulk or "")[1]])
        there = way(contexts, lambda: next(said))
        monkeypatch.setattr(ways, "TRY_AGAIN_SECONDS", 0.0)
        assert there.blobs(None) is None
        monkeypatch.setattr(ways, "TRY_AGAIN_SECONDS", 3600.0)
        assert there.blobs(None) is None
        assert len(warnings(caplog)) == 2
        assert there.blobs(None) is None, "the third port would be the right one"
        there._not_before = 0.0
        assert there.blobs(None) is not None


def test_what_speaks_something_else_at_the_port_is_told(contexts: Contexts, caplog: pytest.LogCaptureFixture) -> None:
    tls = contexts.consortium.server_tls()
    with TlsServer(tls.key_pem, tls.certificate_pem, alpn=("h2",)) as other, CuttingServer() as cutting:
        assert way(contexts, never, other.port).blobs(None) is None
        assert way(contexts, never, cutting.port).blobs(None) is None
    (_, spoken), (_, cut) = warnings(caplog)
    assert spoken == f"{other.address} speaks what it does not name, expected llmasos-bulk/1."
    assert cut.startswith(f"The bulk connection to {cutting.address} broke off: ")


def test_a_coordinator_that_was_restarted_at_another_port_is_found(contexts: Contexts) -> None:
    port = 0
    there = way(contexts, lambda: port)
    consortium = contexts.consortium
    first, second = consortium.listeners(WITH_BULK), consortium.listeners(WITH_BULK)
    port = split_address(first.start().bulk or "")[1]
    try:
        assert there.blobs(None) is not None
        port = split_address(second.start().bulk or "")[1]
        first.stop(grace=0)
        with pytest.raises(CoordinatorUnreachable, match="refused"):
            there.connect()
        there.connect().close()
        assert there.blobs(None) is not None
    finally:
        first.stop(grace=0)
        second.stop(grace=0)


def test_a_coordinator_that_was_restarted_without_the_listener_is_believed(
    contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    port = 0
    there = way(contexts, lambda: port)
    with listening(contexts.consortium, WITH_BULK) as (_, addresses):
        port = split_address(addresses.bulk or "")[1]
        assert there.blobs(None) is not None
    port = 0
    with pytest.raises(CoordinatorUnreachable, match="refused"):
        there.connect()
    assert there.blobs(None) is None
    assert warnings(caplog) == []


def test_a_new_certificate_is_spoken_with_at_the_next_connection(contexts: Contexts) -> None:
    pairs = [(contexts.key_pem, contexts.cert_pem)]
    with listening(contexts.consortium, WITH_BULK) as (_, addresses):
        port = split_address(addresses.bulk or "")[1]
        there = BulkWay("127.0.0.1:1", contexts.consortium.genesis, pair=lambda: pairs[-1], ask=never, port=port)
        there.connect().close()
        before = there._context
        there.connect().close()
        assert there._context is before, "what did not change is not made anew"
        files = contexts.consortium.tls("south")
        pairs.append((files.key.read_bytes(), files.certificate.read_bytes()))
        there.connect().close()
        assert there._context is not before
