"""Streams that hold places for nothing, over real mutual TLS: they end, with a code where the peer can still be told one.

Listeners in this process, so that idleness is a second here and not a minute; an honest member uploads beside the liars.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.wire import convert
from common.wire.channel import MESSAGE_BYTES
from common.wire.v1 import blobs_pb2, common_pb2
from coordinator.api.limits import BUSY_STREAMS, WorkLimits
from tests.support.api import LOOPBACK, ROUND, Consortium, listening, until
from tests.support.blobs import leaves_and_ref
from tests.support.wire_client import Credentials, Refused, WireClient, put_header, put_piece, refusal

IDLE_SECONDS = 1.0
PURPOSE = convert.purpose_to_wire(ROUND)
LIARS = ("mallory", "oscar", "trudy")
STREAMS = WorkLimits().blob_streams


class Stage:
    """Listeners, and a bare client for each member."""

    def __init__(self, folder: Path, stack: ExitStack, idle_seconds: float = IDLE_SECONDS) -> None:
        self.consortium = Consortium(folder)
        self.files = {name: self.consortium.enrolled(name) for name in ("north", *LIARS)}
        settings = replace(LOOPBACK, idle_seconds=idle_seconds)
        self.listeners, self.addresses = stack.enter_context(listening(self.consortium, settings))
        self.peers = {name: stack.enter_context(self._peer(name)) for name in self.files}
        self.end = threading.Event()
        stack.callback(self.end.set)

    def _peer(self, name: str) -> WireClient:
        files = self.files[name]
        tls = Credentials(
            self.consortium.authority.certificate_pem,
            "coordinator.hospitals.internal",
            files.key.read_bytes(),
            files.certificate.read_bytes(),
        )
        return WireClient(self.addresses.work, tls)

    def begun(self, name: str, content: bytes) -> BlobRef:
        leaves, ref = leaves_and_ref(content)
        self.peers[name].begin(ref, leaves, PURPOSE)
        return ref

    def dripping(self, name: str, ref: BlobRef, seconds: float) -> Any:
        """An upload of one byte now and then."""

        def messages() -> Iterator[blobs_pb2.PutRequest]:
            yield put_header(ref, PURPOSE)
            for offset in range(ref.size):
                if self.end.wait(seconds):
                    return
                yield put_piece(0, offset, b"\0")

        return self.peers[name].putting(messages())

    def silent(self, name: str, ref: BlobRef) -> Any:
        """An upload that says what it is, and then nothing."""

        def messages() -> Iterator[blobs_pb2.PutRequest]:
            yield put_header(ref, PURPOSE)
            self.end.wait(60)

        return self.peers[name].putting(messages())

    @property
    def noted(self) -> list[tuple[str, str]]:
        return [(name, code) for name, code, _ in self.consortium.ports.refusals.noted]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def code_of(call: Any) -> Refused | None:
    return refusal(lambda: call.result(timeout=30))


def test_streams_that_drip_are_ended_with_a_code_and_an_honest_upload_passes(stage: Stage) -> None:
    content = bytes(CHUNK_BYTES)
    refs = {name: stage.begun(name, content + name.encode()) for name in LIARS}
    dripping = [(name, stage.dripping(name, refs[name], 0.05)) for name in LIARS for _ in range(STREAMS)]
    # Where three quarters of the places are held, there are still some for others.
    data = bytes(range(256)) * (2 * CHUNK_BYTES // 256)
    ref = stage.begun("north", data)
    pieces = [
        (chunk, offset, data[chunk * CHUNK_BYTES + offset :][:MESSAGE_BYTES])
        for chunk in range(2)
        for offset in range(0, CHUNK_BYTES, MESSAGE_BYTES)
    ]
    assert stage.peers["north"].put(ref, PURPOSE, pieces)
    answers = {(name, code_of(call)) for name, call in dripping}
    assert answers == {(name, Refused("too-many-requests", "RESOURCE_EXHAUSTED")) for name in LIARS}
    assert {name for name, code in stage.noted if code == "too-many-requests"} == set(LIARS)
    until(lambda: len(stage.listeners._open_calls) == 0)


def test_few_places_are_left_to_each_while_most_are_held(stage: Stage) -> None:
    refs = {name: stage.begun(name, name.encode()) for name in (*LIARS, "north")}
    calls = [stage.silent(name, refs[name]) for name in LIARS for _ in range(STREAMS)]
    until(lambda: len(stage.listeners._open_calls) == len(LIARS) * STREAMS)
    calls += [stage.silent("north", refs["north"]) for _ in range(BUSY_STREAMS)]
    until(lambda: len(stage.listeners._open_calls) == len(LIARS) * STREAMS + BUSY_STREAMS)
    assert code_of(stage.silent("north", refs["north"])) == Refused("too-many-requests", "RESOURCE_EXHAUSTED")


def test_streams_that_send_nothing_are_ended_and_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    ref, began = stage.begun("mallory", b"content"), time.monotonic()
    calls = [stage.silent("mallory", ref) for _ in range(STREAMS)]
    for call in calls:
        assert isinstance(call.exception(timeout=30), grpc.FutureCancelledError | grpc.RpcError)
    assert time.monotonic() - began >= IDLE_SECONDS
    logged = [record for record in caplog.records if record.getMessage() == "call ended early"]
    assert {(record.institution, record.reason) for record in logged} == {("mallory", "idle")}  # type: ignore[attr-defined]
    assert stage.noted == []
    assert stage.peers["mallory"].begin(ref, leaves_and_ref(b"content")[0], PURPOSE) == [(0, 1)]


def test_calls_that_never_send_their_message_are_ended_and_counted(stage: Stage) -> None:
    def nothing() -> Iterator[bytes]:
        stage.end.wait(60)
        yield from ()

    limit = WorkLimits().control_calls
    calls = [stage.peers["mallory"].raw_stream("Work/Report", nothing()) for _ in range(limit)]
    until(lambda: len(stage.listeners._open_calls) == limit)
    assert refusal(stage.peers["mallory"].follow) == Refused("too-many-requests", "RESOURCE_EXHAUSTED")
    assert stage.peers["north"].follow() == []
    until(lambda: all(call.done() for call in calls))


def test_a_download_that_nobody_reads_is_ended(stage: Stage) -> None:
    chunks = 12  # more than the buffers of both ends and of the connection take in
    ref = stage.consortium.blob(bytes(chunks * CHUNK_BYTES), "mallory")
    call = stage.peers["mallory"].getting(ref, chunks)
    assert len(next(call).data) == MESSAGE_BYTES
    until(lambda: len(stage.listeners._open_calls) == 1)
    until(lambda: len(stage.listeners._open_calls) == 0)
    assert stage.consortium.ports.moved.down.get("mallory", 0) < ref.size
    with pytest.raises(grpc.RpcError):
        list(call)


def test_hundreds_of_calls_on_one_connection_leave_the_others_answered(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = Stage(tmp_path, stack, idle_seconds=60)
        ref = stage.begun("mallory", b"content")
        calls = [stage.silent("mallory", ref) for _ in range(300)]
        until(lambda: sum(call.done() for call in calls) >= 300 - STREAMS)
        assert len(stage.listeners._open_calls) == STREAMS
        assert stage.peers["north"].follow() == []


def test_pieces_of_one_chunk_in_two_streams_are_one_blob_or_none(stage: Stage) -> None:
    """Two streams of one member carry one blob, one of them wrong bytes: what is stored is right."""
    content = bytes(range(256)) * 16
    ref = stage.begun("mallory", content)
    peer, answers = stage.peers["mallory"], []
    for data in (bytes(len(content)), content, bytes(len(content))):
        answers.append(refusal(lambda data=data: peer.put(ref, PURPOSE, [(0, 0, data)])))  # type: ignore[misc]
    corrupt, gone = Refused("corrupt-chunk", "DATA_LOSS"), Refused("missing-blob", "FAILED_PRECONDITION")
    assert answers == [corrupt, None, gone]
    assert stage.consortium.store.path(ref).read_bytes() == content


def test_a_stream_that_breaks_off_in_a_chunk_is_answered_and_nobodys_fault(stage: Stage) -> None:
    ref = stage.begun("mallory", b"content")
    messages = [put_header(ref, PURPOSE), blobs_pb2.PutRequest(piece=common_pb2.ChunkPiece(chunk=0, data=b"con"))]
    assert code_of(stage.peers["mallory"].putting(messages)) == Refused("truncated-chunk", "INVALID_ARGUMENT")
    assert stage.noted == []
