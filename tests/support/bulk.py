"""Both ends of bulk connections: as they should be, and wild ones.

with contexts.joined() as (caller, listener):       # two lines
    caller.send(Frame.CALL, b"Get")
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.identity.certificates import coordinator_dns
from common.wire import convert
from common.wire.bulk.line import Frame, Line
from common.wire.bulk.tls import client_context, server_context
from common.wire.errors import error_from_detail
from common.wire.framing import frame_put, unframe_piece
from common.wire.session import Session
from coordinator.api.blobs import BlobsServicer
from coordinator.api.bulk import BulkContext, BulkListener
from tests.support.api import CONSORTIUM, ROUND, WITH_BULK, Consortium, Scene, listening

SOON = 5.0
"""Seconds: far more than it takes, far less than a wait that nobody ended."""
NAME = coordinator_dns(CONSORTIUM)


class Contexts:
    """TLS of both ends."""

    def __init__(self, consortium: Consortium) -> None:
        self.consortium = consortium
        files = consortium.tls("north")
        self.key_pem, self.cert_pem = files.key.read_bytes(), files.certificate.read_bytes()
        self.listening = server_context(consortium.server_tls())
        self.calling = client_context(
            ca_pem=consortium.authority.certificate_pem, key_pem=self.key_pem, cert_pem=self.cert_pem
        )

    @contextmanager
    def accepted(self, seconds: float = 30) -> Iterator[tuple[socket.socket, Future[Line]]]:
        """A caller's TCP connection, and the listening end's line, as it comes about."""
        ours, theirs = tcp_pair()
        with ours, theirs, ThreadPoolExecutor(1) as threads:
            try:
                yield ours, threads.submit(Line, theirs, self.listening, server_hostname=None, seconds=seconds)
            finally:
                ours.close()

    @contextmanager
    def joined(self) -> Iterator[tuple[Line, Line]]:
        """The caller's line and the listening end's."""
        with (
            self.accepted() as (connection, accepting),
            Line(connection, self.calling, server_hostname=NAME, seconds=30) as caller,
        ):
            yield caller, accepting.result(timeout=30)

    @contextmanager
    def wild(self) -> Iterator[tuple[ssl.SSLSocket, Line]]:
        """A caller that sends what it likes, over Python's own TLS, and the listening end's line."""
        with (
            self.accepted() as (connection, accepting),
            self.calling.wrap_socket(connection, server_hostname=NAME) as tls,
        ):
            yield tls, accepting.result(timeout=30)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


def count_calls(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Put and Get as they will reach the servicers of listeners that start later, by name and by what carried them."""
    counted: Counter[tuple[str, str]] = Counter()

    def count(name: str) -> None:
        real = getattr(BlobsServicer, name)

        def counting(self: BlobsServicer, request: Any, call: Any) -> Any:
            counted[name, "bulk" if isinstance(call._context, BulkContext) else "grpc"] += 1
            return real(self, request, call)

        monkeypatch.setattr(BlobsServicer, name, counting)

    count("Put")
    count("Get")
    return counted


def begun(consortium: Consortium, session: Session, content: bytes) -> BlobRef:
    """A blob that the coordinator does not hold, and whose upload the session's member began."""
    ref = consortium.blob(content)
    leaves = consortium.store.leaves(ref)
    consortium.store.delete(ref)
    session.stubs().blobs.Begin(convert.begin_request_to_wire(ref, leaves, ROUND))
    return ref


# --- what a caller says on a line, word by word ---------------------------------------------------------------------------

Message = bytes
Frames = list[tuple[Frame, bytes]]
UNKNOWN = BlobRef(algorithm="blake3", size=5, root="00" * 32)
PAIR = b"ab" * CHUNK_BYTES
"""A blob of two chunks."""


def line_of(scene: Scene, name: str = "north") -> Line:
    line = scene.consortium.line(scene.addresses, name)
    line.wait_at_most(30)
    return line


def listener_of(scene: Scene) -> BulkListener:
    assert scene.listeners._bulk is not None
    return scene.listeners._bulk


def nobody_holds_a_place(scene: Scene) -> bool:
    listener = listener_of(scene)
    return not listener._open and not listener._from and scene.listeners.open_calls == 0


def call(method: bytes, *messages: Message) -> Frames:
    return [(Frame.CALL, method), *((Frame.MESSAGE, message) for message in messages), (Frame.END, b"")]


def say(line: Line, frames: Frames) -> None:
    for kind, content in frames:
        line.send(kind, content)


def answer(line: Line) -> list[Message]:
    """The messages until the end.

    Raises:
        LLMasOSError: what came in their place.
    """
    found: list[Message] = []
    while True:
        kind, content = line.receive()
        if kind is Frame.ERROR:
            raise error_from_detail(bytes(content))
        if kind is Frame.END:
            return found
        found.append(bytes(content))


def get(ref: BlobRef, first: int = 0, count: int = 1, **how: Any) -> Message:
    return bytes(convert.get_request_to_wire(ref, first, count, **how).SerializeToString())


def header(ref: BlobRef) -> Message:
    return frame_put(convert.put_header_to_wire(ref, ROUND))


def data(messages: Iterable[Message]) -> list[bytes]:
    return [bytes(unframe_piece(message).data) for message in messages]


def asked(line: Line, frames: Frames) -> list[Message]:
    """As `answer`, to what is said."""
    say(line, frames)
    return answer(line)


@contextmanager
def opened(consortium: Consortium) -> Iterator[Scene]:
    """All three listeners; the scene's sessions are closed at the end."""
    with listening(consortium, WITH_BULK) as (listeners, addresses):
        made = Scene(consortium, listeners, addresses)
        yield made
        for session in made.sessions:
            session.close()


def to_come(scene: Scene) -> BlobRef:
    return begun(scene.consortium, scene.session("north"), PAIR)
