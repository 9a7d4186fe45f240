"""Put and Get over the bulk listener: whole blobs, the connections that carry them, and how calls end."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    CoordinatorUnreachable,
    LLMasOSError,
    MalformedMessage,
    MissingBlob,
    RefusalError,
    TruncatedChunk,
    UnknownCertificate,
)
from common.wire import convert
from common.wire.bulk.calls import BulkBlobs
from common.wire.bulk.line import PIECE_BYTES, Frame, Line
from common.wire.errors import error_detail
from common.wire.messages import Piece
from common.wire.pacing import Pacer, Pacing
from common.wire.session import Session
from common.wire.transfer import Backoff, TransferOptions
from common.wire.v1 import blobs_pb2
from tests.support.api import ROUND, Scene, until
from tests.support.blobs import put_blob
from tests.support.bulk import Contexts, begun
from tests.support.cuts import CuttingProxy

CHUNKS = 6
STREAMS = 2
CONTENT = random.Random(7).randbytes(CHUNKS * CHUNK_BYTES + 4321)
SOON = 5.0
"""Seconds: far more than it takes, far less than a wait that nobody ended."""
AT_ONCE = Backoff(retries=0)

Counted = Counter[tuple[str, str]]


class CountingProxy(CuttingProxy):
    """Cuts nothing; counts connections."""

    def __init__(self, target: str | None) -> None:
        super().__init__(target or "", iter(()))
        self.connections = 0

    def handle(self, connection: Any) -> None:
        self.connections += 1
        super().handle(connection)


def member(scene: Scene, **how: Any) -> Session:
    consortium = scene.consortium
    how = {"streams": STREAMS} | how
    return Session(scene.addresses.work, consortium.genesis, consortium.tls("north"), **how)


# --- whole blobs ----------------------------------------------------------------------------------------------------------


def test_an_upload_goes_over_the_bulk_listener_bit_for_bit(scene: Scene, ours: FolderBlobStore, calls: Counted) -> None:
    ref = put_blob(ours, CONTENT)
    with member(scene) as session, ours.open(ref) as reader:
        assert session.upload(reader, ROUND) is True
    assert scene.consortium.store.path(ref).read_bytes() == CONTENT
    assert scene.ports.moved.up == {"north": len(CONTENT)}
    assert calls == {("Put", "bulk"): STREAMS}


def test_a_download_goes_over_the_bulk_listener_bit_for_bit_and_uses_connections_again(
    scene: Scene, ours: FolderBlobStore, calls: Counted
) -> None:
    ref = scene.consortium.blob(CONTENT, "north")
    with CountingProxy(scene.addresses.bulk) as proxy, member(scene, bulk=proxy.port) as session:
        assert session.download(ref, ours, "north") is True
    assert ours.path(ref).read_bytes() == CONTENT
    assert set(calls) == {("Get", "bulk")}
    assert proxy.connections <= 1 + STREAMS < calls["Get", "bulk"], "one to see whether there is a way, one a stream"


def test_what_connections_carried_the_work_listener_did_not(scene: Scene, ours: FolderBlobStore) -> None:
    ref = put_blob(ours, CONTENT)
    with CountingProxy(scene.addresses.work) as work, CountingProxy(scene.addresses.bulk) as bulk:
        consortium = scene.consortium
        session = Session(work.address, consortium.genesis, consortium.tls("north"), streams=STREAMS, bulk=bulk.port)
        with session, ours.open(ref) as reader:
            assert session.upload(reader, ROUND) is True
    assert bulk.up >= len(CONTENT)
    assert work.up + work.down < PIECE_BYTES


# --- calls, one by one ----------------------------------------------------------------------------------------------------


@pytest.fixture
def blobs(scene: Scene) -> Iterator[BulkBlobs]:
    made = BulkBlobs(None, lambda: scene.consortium.line(scene.addresses, "north"))
    yield made
    made.close()


def wanted(ref: BlobRef, count: int = 1) -> blobs_pb2.GetRequest:
    return convert.get_request_to_wire(ref, 0, count)


def endless(ref: BlobRef, sent: list[int]) -> Iterator[Any]:
    """The first piece of a chunk again and again."""
    yield convert.put_header_to_wire(ref, ROUND)
    for number in itertools.count():
        sent.append(number)
        yield Piece(0, 0, b"x" * 1024)


def test_calls_that_stay_with_grpc_go_there(scene: Scene) -> None:
    assert BulkBlobs(scene, dead_end).ports is scene.ports


def dead_end() -> Line:
    raise CoordinatorUnreachable("There is no way.")


def test_a_connection_that_the_listener_closed_meanwhile_is_not_used_again(scene: Scene) -> None:
    ref, made = scene.consortium.blob(b"content", "north"), []

    def connect() -> Line:
        made.append(scene.consortium.line(scene.addresses, "north"))
        return made[-1]

    blobs = BulkBlobs(None, connect)
    for _ in range(2):
        assert [bytes(piece.data) for piece in blobs.Get(wanted(ref))] == [b"content"]
    assert len(made) == 1
    assert scene.listeners._bulk is not None
    for connection in list(scene.listeners._bulk._open.values()):
        connection.shutdown(2)
    until(made[0].has_input)
    assert [bytes(piece.data) for piece in blobs.Get(wanted(ref))] == [b"content"]
    assert len(made) == 2
    blobs.close()


def test_a_refused_get_raises_the_coordinators_error(blobs: BulkBlobs) -> None:
    ref = BlobRef(algorithm="blake3", size=5, root="00" * 32)
    with pytest.raises(RefusalError, match=r"No statement gives north blob blake3:"):
        list(blobs.Get(wanted(ref)))


def test_a_put_that_was_not_begun_says_to_begin(blobs: BulkBlobs) -> None:
    ref = BlobRef(algorithm="blake3", size=5, root="00" * 32)
    with pytest.raises(MissingBlob, match="north has not begun blob") as error:
        blobs.Put.future(iter([convert.put_header_to_wire(ref, ROUND)])).result(timeout=30)
    assert error.value.fix == "Call Begin first."


def test_a_refusal_in_the_middle_of_a_put_reaches_a_sender_that_goes_on_and_on(scene: Scene, blobs: BulkBlobs) -> None:
    ref, sent = begun(scene.consortium, scene.session("north"), bytes(2 * CHUNK_BYTES)), list[int]()
    with pytest.raises(TruncatedChunk, match=r"expected bytes 1,024 to at most 4,194,304 of it, got 0 to 1,024"):
        blobs.Put.future(endless(ref, sent)).result(timeout=30)
    count = len(sent)
    assert count >= 2
    assert len(sent) == count, "the sender has ended"


def test_a_refusal_reaches_a_sender_that_pauses_longer_than_it_is_waited_for(
    scene: Scene, blobs: BulkBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.api.bulk.DRAIN_SECONDS", 0.05)
    ref = begun(scene.consortium, scene.session("north"), bytes(2 * CHUNK_BYTES))

    def pausing() -> Iterator[Any]:
        yield convert.put_header_to_wire(ref, ROUND)
        yield Piece(0, 7, b"not the first")
        until(lambda: scene.listeners.open_calls == 0)
        until(lambda: scene.listeners._bulk is not None and not scene.listeners._bulk._open)
        yield Piece(0, 20, b"x" * PIECE_BYTES)

    with pytest.raises(TruncatedChunk, match=r"expected bytes 0 to at most 4,194,304 of it, got 7 to 20"):
        blobs.Put.future(pausing()).result(timeout=30)


def test_a_get_that_is_cancelled_before_it_began_carries_nothing(scene: Scene, blobs: BulkBlobs) -> None:
    call = blobs.Get(wanted(scene.consortium.blob(b"content", "north")))
    call.cancel()
    with pytest.raises(CoordinatorUnreachable, match="The bulk connection to the coordinator broke off"):
        list(call)


def test_a_put_is_asked_as_grpcs_futures_are(scene: Scene, blobs: BulkBlobs) -> None:
    ref, end = begun(scene.consortium, scene.session("north"), b"content"), threading.Event()

    def messages() -> Iterator[Any]:
        yield convert.put_header_to_wire(ref, ROUND)
        end.wait(60)

    call = blobs.Put.future(messages())
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.01)
    call.cancel()
    end.set()
    with pytest.raises(grpc.FutureCancelledError):
        call.result(timeout=30)


def test_closing_ends_calls_and_refuses_later_ones(scene: Scene) -> None:
    blobs = BulkBlobs(None, lambda: scene.consortium.line(scene.addresses, "north"))
    ref = scene.consortium.blob(bytes(3 * CHUNK_BYTES), "north")
    pieces = iter(blobs.Get(wanted(ref, 3)))
    next(pieces)
    blobs.close()
    with pytest.raises(CoordinatorUnreachable, match="The bulk connection to the coordinator broke off"):
        list(pieces)
    with pytest.raises(CoordinatorUnreachable, match=r"The session was closed on this side\."):
        list(blobs.Get(wanted(ref)))


# --- a coordinator that keeps to no rule ----------------------------------------------------------------------------------

PUT_REPLY = blobs_pb2.PutResponse(complete=True).SerializeToString()
WILD_ANSWERS: dict[str, tuple[str, list[tuple[Frame, bytes]], type[LLMasOSError], str]] = {
    "a call": ("Get", [(Frame.CALL, b"Get")], MalformedMessage, "expected a reply, got CALL"),
    "no piece": (
        "Get",
        [(Frame.MESSAGE, b"\xff")],
        MalformedMessage,
        "The coordinator's reply is not the message that this call gives",
    ),
    "no reply to a put": ("Put", [(Frame.END, b"")], MalformedMessage, "ended a Put without its reply"),
    "two replies to a put": (
        "Put",
        [(Frame.MESSAGE, PUT_REPLY), (Frame.MESSAGE, PUT_REPLY)],
        MalformedMessage,
        "answered a Put twice",
    ),
    "an error that says nothing": ("Get", [(Frame.ERROR, b"\xff\xff")], CoordinatorUnreachable, "2 bytes that do not"),
    "an error that is too long": ("Get", [(Frame.ERROR, bytes(8193))], CoordinatorUnreachable, "8,193 bytes that do"),
    "an error with control characters": (
        "Put",
        [(Frame.ERROR, error_detail(MissingBlob("gone\x1b[2J", "begin\nagain")))],
        MissingBlob,
        r"^gone \[2J",
    ),
}


@pytest.mark.parametrize("what", WILD_ANSWERS)
def test_what_is_no_answer_ends_the_call_with_what_it_was(contexts: Contexts, what: str) -> None:
    method, frames, kind, message = WILD_ANSWERS[what]
    ref = BlobRef(algorithm="blake3", size=5, root="00" * 32)
    with contexts.joined() as (caller, listener):
        blobs = BulkBlobs(None, lambda: caller)
        for frame, content in frames:
            listener.send(frame, content)
        with pytest.raises(kind, match=message):
            made(blobs, method, ref)
        assert caller._socket.fileno() == -1, "what went wrong once is not used again"


def made(blobs: BulkBlobs, method: str, ref: BlobRef) -> object:
    if method == "Get":
        return list(blobs.Get(wanted(ref)))
    return blobs.Put.future(iter([convert.put_header_to_wire(ref, ROUND)])).result(timeout=30)


# --- transfers that are ended ---------------------------------------------------------------------------------------------

SLOW = 1_000_000.0
"""Bytes a second: the whole would take half a minute."""


class InProgress:
    """A slow transfer in a thread of its own, of which some bytes have passed."""

    def __init__(self, scene: Scene, ours: FolderBlobStore, way: str, threads: ThreadPoolExecutor) -> None:
        self.session = member(scene, pacing=Pacing(Pacer(lambda: SLOW), Pacer(lambda: SLOW)))
        begun = threading.Event()
        self.options = TransferOptions(on_bytes=lambda _: begun.set(), backoff=AT_ONCE)
        self._scene, self._ours = scene, ours
        carry = {"up": self._up, "down": self._down}[way]
        self.result = threads.submit(carry)
        assert begun.wait(30)

    def _up(self) -> bool:
        with self._ours.open(put_blob(self._ours, CONTENT)) as reader:
            return self.session.upload(reader, ROUND, self.options)

    def _down(self) -> bool:
        ref = self._scene.consortium.blob(CONTENT, "north")
        return self.session.download(ref, self._ours, "north", self.options)


@pytest.fixture(params=["up", "down"])
def transfer(
    request: pytest.FixtureRequest, scene: Scene, ours: FolderBlobStore, calls: Counted
) -> Iterator[InProgress]:
    with ThreadPoolExecutor(1) as threads:
        made = InProgress(scene, ours, request.param, threads)
        try:
            until(lambda: bool(calls))
            assert {carrier for _, carrier in calls} == {"bulk"}
            yield made
        finally:
            made.options.stop.set()
            made.session.close()


def timed(ended: Callable[[], object]) -> float:
    started = time.monotonic()
    ended()
    return time.monotonic() - started


def test_a_transfer_that_is_told_to_stop_ends_soon(transfer: InProgress) -> None:
    transfer.options.stop.set()
    assert timed(lambda: transfer.result.exception(timeout=30)) < SOON
    assert transfer.result.result() is False


def test_closing_the_session_ends_a_transfer_in_progress(transfer: InProgress) -> None:
    transfer.session.close()
    assert timed(lambda: transfer.result.exception(timeout=30)) < SOON
    with pytest.raises(CoordinatorUnreachable, match=r"(broke off: |The session was closed on this side\.)"):
        transfer.result.result()


def test_revoking_ends_a_transfer_in_progress(scene: Scene, transfer: InProgress) -> None:
    scene.ports.members.revoke("north")
    scene.listeners.sweep()
    assert timed(lambda: until(lambda: scene.listeners.open_calls == 0)) < SOON
    transfer.result.exception(timeout=30)  # what came before is read at the pace of before
    with pytest.raises((UnknownCertificate, CoordinatorUnreachable), match=r"(No active member|broke off)"):
        transfer.result.result()
