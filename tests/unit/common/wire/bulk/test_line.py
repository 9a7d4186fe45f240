"""Frames over TLS on a TCP connection: what is sent comes, and every way in which a connection goes wrong has its error."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import MalformedMessage
from common.wire.bulk.line import MOST_FRAME_BYTES, PIECE_BYTES, Frame, Line, LineBroken
from tests.support.bulk import NAME, Contexts, tcp_pair

NOT_IN_TIME = "nothing could be read or written in time"
CLOSED = "the other side closed the connection"
CUT = "it was ended on this side"
SOON = 5.0
"""Seconds: far more than it takes, far less than a deadline that was not kept."""


def head(kind: int, length: int) -> bytes:
    return struct.pack(">BI", kind, length)


def repeat(times: int, what: Callable[[], object]) -> None:
    for _ in range(times):
        what()


# --- what is sent comes ---------------------------------------------------------------------------------------------------

SIZES = st.sampled_from((0, 1, 5, 16_379, 16_384, 16_385, 131_072))
"""Around the bounds of TLS records and of what the socket is read by."""
PARTS = st.lists(SIZES, max_size=3) | st.just([0, MOST_FRAME_BYTES]) | st.just([MOST_FRAME_BYTES])
FRAMES = st.lists(st.tuples(st.sampled_from(Frame), PARTS), max_size=6)


@settings(max_examples=25)
@given(FRAMES)
def test_any_frames_come_as_they_were_sent_both_ways(contexts: Contexts, frames: list[tuple[Frame, list[int]]]) -> None:
    with contexts.joined() as (caller, listener), ThreadPoolExecutor(1) as threads:
        echoing = threads.submit(echo, listener, len(frames))
        sent = [(kind, [random.Random(size).randbytes(size) for size in sizes]) for kind, sizes in frames]
        for kind, parts in sent:
            caller.send(kind, *parts)
            came, content = caller.receive()
            assert (came, bytes(content)) == (kind, b"".join(parts))
        echoing.result(timeout=30)


def echo(line: Line, count: int) -> None:
    for _ in range(count):
        kind, content = line.receive()
        line.send(kind, content[:7], content[7:])


def test_frames_in_one_record_come_one_after_the_other(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener):
        assert listener.has_input() is False
        caller.sendall(head(Frame.MESSAGE, 2) + b"ab" + head(Frame.END, 0))
        kind, content = listener.receive()
        assert (kind, bytes(content)) == (Frame.MESSAGE, b"ab")
        assert listener.has_input() is True
        assert listener.receive()[0] is Frame.END
        assert listener.has_input() is False


def test_a_frame_that_comes_byte_by_byte_comes(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener):
        for byte in head(Frame.ERROR, 3) + b"why":
            caller.sendall(bytes([byte]))
        kind, content = listener.receive()
        assert (kind, bytes(content)) == (Frame.ERROR, b"why")


def test_both_ends_know_the_protocol_and_the_others_certificate(contexts: Contexts) -> None:
    with contexts.joined() as (caller, listener):
        assert (caller.protocol, listener.protocol) == ("llmasos-bulk/1", "llmasos-bulk/1")
        assert listener.peer_certificate == ssl.PEM_cert_to_DER_cert(contexts.cert_pem.decode())
        assert caller.peer_certificate not in (b"", listener.peer_certificate)


# --- what is no frame -----------------------------------------------------------------------------------------------------

NO_FRAMES = {
    "more than a frame may hold": (
        head(Frame.MESSAGE, MOST_FRAME_BYTES + 1),
        r"A frame of the bulk protocol: expected at most 524,288 bytes, got 524,289\.",
    ),
    "as much as the head can say": (head(Frame.MESSAGE, 2**32 - 1), "at most 524,288 bytes, got 4,294,967,295"),
    "kind 0": (head(0, 0), r"A frame of the bulk protocol: expected kinds 1 to 4, got 0\."),
    "an unknown kind": (head(5, 0), "expected kinds 1 to 4, got 5"),
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", "expected kinds 1 to 4, got 71"),
}


@pytest.mark.parametrize("what", NO_FRAMES)
def test_what_is_no_frame_is_refused_by_its_head_alone(contexts: Contexts, what: str) -> None:
    content, message = NO_FRAMES[what]
    with contexts.wild() as (caller, listener):
        caller.sendall(content)
        with pytest.raises(MalformedMessage, match=message):
            listener.receive()


# --- connections that break -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("came", [b"", head(Frame.MESSAGE, 9)[:3], head(Frame.MESSAGE, 9) + b"half"])
def test_a_connection_that_ends_before_a_whole_frame_is_broken(contexts: Contexts, came: bytes) -> None:
    with contexts.wild() as (caller, listener):
        caller.sendall(came)
        caller.shutdown(socket.SHUT_RDWR)
        with pytest.raises(LineBroken, match=CLOSED):
            listener.receive()


def test_tls_that_is_closed_in_order_is_broken_where_no_frame_is(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener):
        caller.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            caller.unwrap()  # says that it closes, and is not answered
        with pytest.raises(LineBroken, match=CLOSED):
            listener.receive()


def test_a_connection_that_is_reset_is_broken(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener):
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        with pytest.raises(LineBroken, match="Connection reset by peer"):
            listener.receive()


def test_bytes_that_are_no_tls_in_a_connection_break_it(contexts: Contexts) -> None:
    with contexts.joined() as (caller, listener):
        caller._socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(LineBroken, match="TLS: decryption failed or bad record mac"):
            listener.receive()


def test_where_nothing_comes_for_as_long_as_may_be_the_line_is_broken(contexts: Contexts) -> None:
    with contexts.joined() as (_, listener):
        listener.wait_at_most(0.05)
        with pytest.raises(LineBroken, match=NOT_IN_TIME):
            listener.receive()


def test_where_nobody_reads_for_as_long_as_may_be_the_line_is_broken(contexts: Contexts) -> None:
    with contexts.joined() as (caller, _):
        caller.wait_at_most(0.05)
        with pytest.raises(LineBroken, match=NOT_IN_TIME):
            repeat(100_000, lambda: caller.send(Frame.MESSAGE, bytes(MOST_FRAME_BYTES)))


@contextmanager
def dripping(sink: socket.socket, first: bytes, seconds: float = 0.02) -> Iterator[None]:
    """After what comes `first`, a byte from time to time."""
    end = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            sink.sendall(first)
            while not end.wait(seconds):
                sink.sendall(b"\x01")

    with ThreadPoolExecutor(1) as threads:
        threads.submit(drip)
        try:
            yield
        finally:
            end.set()


def test_a_wait_starts_over_with_whatever_comes(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener), dripping(caller, head(Frame.MESSAGE, 24), seconds=0.05):
        listener.wait_at_most(1.0)
        assert len(listener.receive()[1]) == 24


def test_a_deadline_does_not_start_over(contexts: Contexts) -> None:
    with contexts.wild() as (caller, listener), dripping(caller, head(Frame.MESSAGE, 10_000)):
        listener.end_within(0.1)
        with pytest.raises(LineBroken, match=NOT_IN_TIME):
            listener.receive()


def test_a_line_that_is_cut_from_another_thread_fails_where_it_waits(contexts: Contexts) -> None:
    with contexts.joined() as (_, listener), ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(listener.receive)
        listener.cut()
        with pytest.raises(LineBroken, match=CUT):
            waiting.result(timeout=SOON)


def test_a_line_that_was_cut_gives_nothing_that_came_before(contexts: Contexts) -> None:
    with contexts.joined() as (caller, listener):
        for _ in range(3):
            caller.send(Frame.MESSAGE, bytes(PIECE_BYTES))
        listener.receive()
        listener.cut()
        with pytest.raises(LineBroken, match=CUT):
            repeat(2, listener.receive)


def test_draining_ends_with_the_other_side_or_with_its_time(contexts: Contexts) -> None:
    with contexts.joined() as (caller, listener):
        listener.drain(0.05)
        caller.send(Frame.MESSAGE, b"still on its way")
        caller.close()
        started = time.monotonic()
        listener.drain(60)
        assert time.monotonic() - started < SOON


# --- handshakes -----------------------------------------------------------------------------------------------------------

NO_HANDSHAKES: dict[str, tuple[Callable[[socket.socket], object], str]] = {
    "nothing": (lambda connection: None, NOT_IN_TIME),
    "HTTP": (lambda connection: connection.sendall(b"GET / HTTP/1.1\r\n\r\n"), r"TLS: .*http request"),
    "noise": (lambda connection: connection.sendall(bytes(range(1, 250))), r"TLS: .*(version|record|packet)"),
    "the end": (lambda connection: connection.close(), CLOSED),
}


@pytest.mark.parametrize("what", NO_HANDSHAKES)
def test_what_is_no_handshake_breaks_the_line_and_closes_the_socket(contexts: Contexts, what: str) -> None:
    say, message = NO_HANDSHAKES[what]
    ours, theirs = tcp_pair()
    with ours, theirs:
        say(ours)
        with pytest.raises(LineBroken, match=message):
            Line(theirs, contexts.listening, server_hostname=None, seconds=0.1 if what == "nothing" else 30)
        assert theirs.fileno() == -1


def test_a_handshake_that_drips_has_a_deadline(contexts: Contexts) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs, dripping(ours, b"\x16\x03\x01\x02\x00"), pytest.raises(LineBroken, match=NOT_IN_TIME):
        Line(theirs, contexts.listening, server_hostname=None, seconds=0.1)


def test_a_caller_waits_for_a_listener_that_says_nothing_no_longer_than_told(contexts: Contexts) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs, pytest.raises(LineBroken, match=NOT_IN_TIME):
        Line(ours, contexts.calling, server_hostname=NAME, seconds=0.05)
