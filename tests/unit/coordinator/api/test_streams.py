"""Blob streams and limits over real mutual TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import ManualClock, SystemClock
from common.errors import (
    CoordinatorUnreachable,
    MissingBlob,
    TooManyRequests,
)
from common.wire import convert
from common.wire.errors import rpc_errors
from common.wire.messages import Piece
from coordinator.api.limits import BUSY_STREAMS, WorkLimits
from coordinator.ports import UploadPurpose
from tests.support.api import LOOPBACK, REPORT, ROUND, Consortium, Held, Scene, listening, until


def test_a_blob_goes_up_and_comes_down(scene: Scene, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * CHUNK_BYTES // 512) + b"tail"
    ours, back = FolderBlobStore(tmp_path / "ours"), FolderBlobStore(tmp_path / "back")
    (tmp_path / "source").write_bytes(content)
    ref, north = ours.ingest(tmp_path / "source", "blake3", move=False), scene.session("north")
    with ours.open(ref) as reader:
        assert north.upload(reader, ROUND) is True
    assert scene.ports.access.writes[0] == ("north", ref, UploadPurpose(round_opened="ab" * 32))
    scene.ports.access.allow("north", ref)
    assert north.download(ref, back, "north") is True
    assert back.path(ref).read_bytes() == content
    assert (scene.ports.moved.up, scene.ports.moved.down) == ({"north": len(content)}, {"north": len(content)})


def test_a_put_that_was_not_begun_says_to_begin(scene: Scene) -> None:
    ref = BlobRef(algorithm="blake3", size=5, root="00" * 32)
    header = convert.put_header_to_wire(ref, ROUND)
    with pytest.raises(MissingBlob, match="north has not begun blob") as error, rpc_errors():
        scene.session("north").stubs().blobs.Put(iter([header]))
    assert error.value.fix == "Call Begin first."


def test_idle_uploads_do_not_starve_control_calls(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    names = [f"institution-{number}" for number in range(4)]
    for name in names:
        consortium.enrolled(name)
    with listening(consortium) as (listeners, addresses):
        scene = Scene(consortium, listeners, addresses)
        sessions = [scene.session(name) for name in names]
        most = WorkLimits().blob_streams
        counts = (most, most, most, BUSY_STREAMS)  # where three quarters are taken, each of the others gets a few
        held = [
            Held(scene, session, consortium.blob(name.encode()), count)
            for name, session, count in zip(names, sessions, counts, strict=True)
        ]
        assert len(scene.ports.access.writes) == sum(counts) + len(names)
        for session in sessions:
            assert session.report(REPORT) is True
            assert session.follow(from_index=0, wait_seconds=0).ledger_size == 0
        for streams in held:
            streams.end.set()
        for session in sessions:
            session.close()


def test_a_ninth_stream_of_one_institution_is_refused(scene: Scene) -> None:
    north, ref = scene.session("north"), scene.consortium.blob(b"content")
    held = Held(scene, north, ref, 8)
    ninth = north.stubs().blobs.Put.future(iter([convert.put_header_to_wire(ref, ROUND)]))
    with (
        pytest.raises(TooManyRequests, match="Institution north: expected at most 8 blob streams at once"),
        rpc_errors(),
    ):
        ninth.result(timeout=30)
    held.end.set()


def test_a_stream_that_its_caller_drops_frees_its_slot(scene: Scene) -> None:
    north, ref = scene.session("north"), scene.consortium.blob(b"content")
    held = Held(scene, north, ref, 8)
    held.calls.pop().cancel()
    until(lambda: len(scene.listeners._open_calls) == 7)
    held.calls += Held(scene, north, ref, 1).calls
    held.end.set()


def test_an_idle_upload_is_ended_and_may_be_resumed(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    with listening(consortium) as (listeners, addresses), consortium.session(addresses, "north") as north:
        ref, end = consortium.blob(bytes(CHUNK_BYTES) + b"!"), threading.Event()
        begin = convert.begin_request_to_wire(ref, consortium.store.leaves(ref), ROUND)
        consortium.store.delete(ref)
        blobs = north.stubs().blobs
        blobs.Begin(begin)

        def messages() -> Iterator[Any]:
            yield convert.put_header_to_wire(ref, ROUND)
            yield convert.put_piece_to_wire(Piece(1, 0, b"!"))
            end.wait(60)

        call = blobs.Put.future(messages())
        until(lambda: consortium.ports.moved.up == {"north": 1})
        clock.advance(seconds=61)
        until(lambda: listeners.sweep() > 0 or call.done())
        with pytest.raises(CoordinatorUnreachable, match="broke off, CANCELLED"), rpc_errors():
            raise call.exception(timeout=30)
        end.set()
        assert convert.missing_from_wire(blobs.Begin(begin), ref) == [(0, 1)]


def test_callers_who_send_nothing_are_counted_before_they_hold_anything(scene: Scene) -> None:
    channel = scene.session("north").stubs().channel
    silent = channel.stream_unary("/llmasos.v1.Work/Report")
    end = threading.Event()

    def nothing() -> Iterator[bytes]:
        end.wait(60)
        yield from ()

    calls = [silent.future(nothing()) for _ in range(9)]
    until(lambda: any(call.done() for call in calls))
    refused = next(call for call in calls if call.done())
    with (
        pytest.raises(TooManyRequests, match="Institution north: expected at most 8 control calls at once"),
        rpc_errors(),
    ):
        raise refused.exception()
    end.set()


def test_a_call_rate_above_the_limit_is_refused_until_time_has_passed(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    settings = replace(LOOPBACK, work_limits=WorkLimits(calls_per_second=1, calls_at_once=2))
    with listening(consortium, settings) as (_, addresses), consortium.session(addresses, "north") as north:
        assert [north.report(REPORT), north.report(REPORT)] == [True, True]
        with pytest.raises(TooManyRequests, match=r"Institution north: expected at most 1 calls a second, got more\."):
            north.report(REPORT)
        clock.advance(seconds=1)
        assert north.report(REPORT) is True


def test_a_call_that_its_caller_drops_keeps_its_slot_until_its_work_is_done(scene: Scene) -> None:
    """Who cancels and begins again would have all threads at work, on the inspection of a delta for instance."""
    north, desk = scene.session("north"), scene.ports.desk
    desk.gate = threading.Event()
    request = convert.submit_request_to_wire(b"{}", None)
    calls = [north.stubs().work.Submit.future(request) for _ in range(8)]
    for _ in calls:  # all are at work: a call that is dropped before has none
        assert desk.at_gate.acquire(timeout=30)
    for call in calls:
        call.cancel()
    with pytest.raises(TooManyRequests, match="Institution north: expected at most 8 control calls at once"):
        north.submit(b"{}")
    desk.gate.set()
    until(lambda: len(scene.listeners._open_calls) == 0)
    assert north.submit(b"{}") == 8
