"""Places at the bulk listener: who only holds one loses it, who takes too many gets none; and its end."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.clock import ManualClock, SystemClock
from common.errors import (
    LLMasOSError,
    TooManyRequests,
)
from common.wire import convert
from common.wire.bulk.line import Frame, Line, LineBroken
from common.wire.errors import rpc_errors
from common.wire.framing import frame_put
from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2
from coordinator.api import bulk
from tests.support.api import ROUND, Consortium, Held, Scene, until
from tests.support.bulk import (
    SOON,
    UNKNOWN,
    Frames,
    answer,
    asked,
    begun,
    call,
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


# --- callers that only hold their places ----------------------------------------------------------------------------------


def raw(scene: Scene) -> socket.socket:
    """A connection without TLS."""
    host, _, port = (scene.addresses.bulk or "").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def ends(connection: socket.socket) -> bool:
    """Whether the other side closes; not before."""
    with suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    return True


SILENCES: dict[str, Frames] = {
    "no end of a get": [(Frame.CALL, b"Get"), (Frame.MESSAGE, b"GET")],
    "no second call": [(Frame.CALL, b"Get"), (Frame.MESSAGE, b"GET"), (Frame.END, b"")],
}


@pytest.mark.parametrize("what", SILENCES)
def test_a_caller_that_stays_silent_outside_of_a_call_is_sent_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    request = get(scene.consortium.blob(b"content", "north"))
    with line_of(scene) as line:
        monkeypatch.setattr(bulk, "HANDSHAKE_SECONDS", 0.05)
        say(line, [(kind, request if content == b"GET" else content) for kind, content in SILENCES[what]])
        with suppress(LineBroken):
            while True:
                line.receive()
        until(lambda: nobody_holds_a_place(scene))


def test_a_caller_that_calls_nothing_is_sent_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "HANDSHAKE_SECONDS", 1.0)
    with line_of(scene) as line, pytest.raises(LineBroken, match="closed"):
        line.receive()
    until(lambda: nobody_holds_a_place(scene))


def test_a_call_whose_end_did_not_come_in_time_has_no_end_and_no_successor(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = get(scene.consortium.blob(b"content", "north"))
    with line_of(scene) as line:
        monkeypatch.setattr(bulk, "HANDSHAKE_SECONDS", 0.1)
        say(line, [(Frame.CALL, b"Get"), (Frame.MESSAGE, request)])
        line._tls.write(struct.pack(">BI", Frame.END, 100))  # and nothing of that
        line._flush()
        with pytest.raises(LineBroken, match="closed"):
            answer(line)


def test_a_caller_that_never_shakes_hands_is_sent_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "HANDSHAKE_SECONDS", 0.05)
    with raw(scene) as connection:
        assert ends(connection)
    until(lambda: nobody_holds_a_place(scene))


@pytest.mark.parametrize("before", [[], [(Frame.CALL, b"Get"), (Frame.MESSAGE, b"GET")]])
def test_a_caller_that_drips_outside_of_a_call_is_sent_away(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, before: Frames
) -> None:
    request = get(scene.consortium.blob(b"content", "north"))
    monkeypatch.setattr(bulk, "HANDSHAKE_SECONDS", 1.0)
    pause = threading.Event()
    with line_of(scene) as line:
        say(line, [(kind, request if content == b"GET" else content) for kind, content in before])
        line._tls.write(struct.pack(">BI", Frame.CALL if not before else Frame.MESSAGE, 100_000))
        until(lambda: drips_no_more(line, pause))
    until(lambda: nobody_holds_a_place(scene))


def drips_no_more(line: Line, pause: threading.Event) -> bool:
    """Whether the other side has closed; one more byte where it has not."""
    pause.wait(0.02)
    try:
        line._tls.write(b".")
        line._flush()
    except OSError:
        return True
    return False


def test_an_upload_that_brings_nothing_is_ended_and_its_place_is_free(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    with opened(consortium) as scene, line_of(scene) as line:
        say(line, call(b"Put", header(to_come(scene)))[:-1])
        line._tls.write(struct.pack(">BI", Frame.MESSAGE, 100_000))  # and no more of it
        line._flush()
        until(lambda: len(scene.ports.access.writes) == 2)
        clock.advance(seconds=61)
        until(lambda: scene.listeners.sweep() > 0 or scene.listeners.open_calls == 0)
        with pytest.raises(LineBroken, match=r"(closed|reset)"):
            answer(line)
        until(lambda: nobody_holds_a_place(scene))


def test_a_download_that_nobody_reads_is_ended_and_its_place_is_free(tmp_path: Path) -> None:
    clock = ManualClock(SystemClock().now())
    consortium = Consortium(tmp_path, clock=clock)
    consortium.enrolled("north")
    with opened(consortium) as scene, line_of(scene) as line:
        ref = consortium.blob(bytes(16 * CHUNK_BYTES), "north")
        say(line, call(b"Get", get(ref, 0, 16)))
        until(lambda: scene.listeners.open_calls == 1)

        def swept() -> bool:
            clock.advance(seconds=61)
            return scene.listeners.sweep() > 0

        until(swept)
        until(lambda: nobody_holds_a_place(scene))


# --- callers that are too many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["MOST_CONNECTIONS", "MOST_OF_AN_ADDRESS"])
def test_connections_beyond_the_bound_are_closed_at_once_and_places_come_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(bulk, bound, 2)
    with raw(scene) as first, raw(scene):
        until(lambda: listener_of(scene)._from.total() == 2)
        with raw(scene) as third:
            assert ends(third)
        first.close()
        until(lambda: listener_of(scene)._from.total() == 1)
        with line_of(scene) as line, pytest.raises(LLMasOSError, match="No statement gives north"):
            asked(line, call(b"Get", get(UNKNOWN)))
    until(lambda: nobody_holds_a_place(scene))


def held(scene: Scene, ref: BlobRef, count: int, stack: ExitStack) -> None:
    """So many uploads on bulk connections that said what they are and then nothing."""
    before = len(scene.ports.access.writes)
    for _ in range(count):
        line = stack.enter_context(line_of(scene))
        say(line, call(b"Put", header(ref))[:-1])
    until(lambda: len(scene.ports.access.writes) == before + count)


def test_streams_of_both_listeners_count_together(scene: Scene) -> None:
    north, ref = scene.session("north"), to_come(scene)
    message = "Institution north: expected at most 8 blob streams at once, got one more."
    with ExitStack() as stack:
        over_grpc = Held(scene, north, ref, 4)
        held(scene, ref, 4, stack)
        line = stack.enter_context(line_of(scene))
        say(line, call(b"Put", header(ref)))
        with pytest.raises(TooManyRequests) as here:
            answer(line)
        ninth = north.stubs().blobs.Put.future(iter([convert.put_header_to_wire(ref, ROUND)]))
        with pytest.raises(TooManyRequests) as there, rpc_errors():
            ninth.result(timeout=30)
        over_grpc.end.set()
    assert here.value.message == there.value.message == message
    until(lambda: nobody_holds_a_place(scene))


# --- the end --------------------------------------------------------------------------------------------------------------


def silent_tcp(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(raw(scene))


def silent_tls(scene: Scene, stack: ExitStack) -> None:
    stack.enter_context(line_of(scene))


def between_calls(scene: Scene, stack: ExitStack) -> None:
    line = stack.enter_context(line_of(scene))
    asked(line, call(b"Get", get(scene.consortium.blob(b"content", "north"))))


def waiting_upload(scene: Scene, stack: ExitStack) -> None:
    held(scene, to_come(scene), 1, stack)


def unread_download(scene: Scene, stack: ExitStack) -> None:
    line = stack.enter_context(line_of(scene))
    ref = scene.consortium.blob(bytes(16 * CHUNK_BYTES), "north")
    say(line, call(b"Get", get(ref, 0, 16)))
    until(lambda: scene.listeners.open_calls == 1)


def refused_and_talking(scene: Scene, stack: ExitStack) -> None:
    line = stack.enter_context(line_of(scene))
    say(line, [(Frame.CALL, b"Begin")])
    line.receive()


@pytest.mark.parametrize(
    "peer", [silent_tcp, silent_tls, between_calls, waiting_upload, unread_download, refused_and_talking]
)
def test_stopping_ends_every_connection_soon(scene: Scene, peer: Callable[[Scene, ExitStack], None]) -> None:
    with ExitStack() as stack:
        peer(scene, stack)
        until(lambda: len(listener_of(scene)._open) == 1)
        started = time.monotonic()
        scene.listeners.stop(grace=0)
        assert time.monotonic() - started < SOON
        assert nobody_holds_a_place(scene)
        with pytest.raises(ConnectionRefusedError):
            raw(scene)


def test_a_call_in_progress_is_given_its_grace(scene: Scene) -> None:
    ref = begun(scene.consortium, scene.session("north"), b"content")
    with line_of(scene) as line:
        say(line, call(b"Put", header(ref))[:-1])
        until(lambda: scene.listeners.open_calls == 1)
        stopping = threading.Thread(target=listener_of(scene).stop, args=(30.0,))
        stopping.start()
        until(listener_of(scene)._stopping.is_set)
        say(line, [(Frame.MESSAGE, frame_put(Piece(0, 0, b"content"))), (Frame.END, b"")])
        [reply] = answer(line)
        stopping.join(SOON)
        assert not stopping.is_alive()
    assert blobs_pb2.PutResponse.FromString(reply).complete
