"""The bulk listener: Put and Get of the Blobs service on TLS connections of their own, docs/protocol.md#bulk.

    accept ─▶ TLS handshake ─▶ CALL ─▶ the work listener's door, limits and servicer ─▶ END or ERROR

A connection carries calls one after the other and takes a thread. Who speaks, what a call may do, how many a member may hold,
what is recorded and what ends it early is decided where gRPC's calls are: this module is another way to the same handlers.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from common.errors import LLMasOSError, MalformedMessage, PortInUse
from common.identity.certificates import UNREADABLE
from common.wire.bulk.line import PIECE_BYTES, Frame, Line, LineBroken
from common.wire.bulk.tls import ALPN, server_context
from common.wire.channel import ServerTls, TlsSource, split_address
from common.wire.errors import error_detail
from common.wire.framing import piece_parts, unframe_put
from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2
from coordinator.api.interceptor import Interceptor
from coordinator.api.limits import peer_address

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
"""For the handshake, for each CALL after it, and for what is left to say once its handler is done."""
DRAIN_SECONDS = 5.0
MOST_CONNECTIONS = 160
MOST_OF_AN_ADDRESS = 96
"""Many institutions may share one."""
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class _Details:
    """What an interceptor of grpc's reads of a call."""

    method: str


class BulkListener:
    """Takes connections from `start` to `stop`."""

    def __init__(self, address: str, tls: TlsSource, interceptor: Interceptor, blobs: Any) -> None:
        """
        Args:
            address: host:port to listen at; port 0 is any free one.
            interceptor: the work listener's.
            blobs: a BlobsServicer.
        """
        self._address, self._tls = address, tls
        self._methods = _methods(interceptor, blobs)
        self._served: tuple[ServerTls, ssl.SSLContext] | None = None
        self._lock = threading.Lock()
        self._from: Counter[str] = Counter()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._listening: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> str:
        """Binds and serves; the address with the port that it got.

        Raises:
            PortInUse: the address is taken or not this machine's.
            UsageError: it is not host:port.
        """
        host, port = split_address(self._address)
        self._context()  # a certificate that cannot be served shows now
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            self._listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise PortInUse(
                f"The bulk listener cannot have {self._address}: it is taken, or not this machine's."
            ) from error
        self._accepting = threading.Thread(target=self._accept, args=(self._listening,), name="api-bulk", daemon=True)
        self._accepting.start()
        return f"{self._address.rpartition(':')[0]}:{self._listening.getsockname()[1]}"

    def stop(self, grace: float) -> None:
        """Takes no more connections, gives calls `grace` seconds, then cuts them; returns when all have ended."""
        self._stopping.set()
        if self._listening is None or self._accepting is None:
            return
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        self._accepting.join()
        until = time.monotonic() + grace
        for thread in self._running():
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            connections = list(self._open.values())
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # also where it is still in its handshake
        for thread in self._running():
            thread.join()

    def _running(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._open)

    def _accept(self, listening: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = listening.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                logger.warning("bulk connection not taken", extra={"reason": str(error)})
                time.sleep(0.1)  # out of file descriptors, for instance
                continue
            peer = _peer(address)
            if not self._enter(peer):
                connection.close()
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection, peer), name=f"api-bulk-{address[1]}", daemon=True
            )
            with self._lock:
                self._open[thread] = connection
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                logger.warning("bulk connection not taken", extra={"reason": str(error)})
                connection.close()
                self._leave(peer, thread)

    def _enter(self, peer: str) -> bool:
        with self._lock:
            host = peer_address(peer)
            if self._from.total() >= MOST_CONNECTIONS or self._from[host] >= MOST_OF_AN_ADDRESS:
                return False
            self._from[host] += 1
            return True

    def _serve(self, connection: socket.socket, peer: str) -> None:
        try:
            line = Line(connection, self._context(), server_hostname=None, seconds=HANDSHAKE_SECONDS)
            with line:
                while not self._stopping.is_set() and self._answer(line, peer):
                    pass
        except LineBroken as broken:
            logger.debug("bulk connection ended", extra={"peer": peer_address(peer), "reason": str(broken)})
        except Exception:  # the last line of defence: one connection's bug is no other's
            logger.exception("bug in a bulk connection", extra={"peer": peer_address(peer)})
        finally:
            connection.close()
            self._leave(peer, threading.current_thread())

    def _leave(self, peer: str, thread: threading.Thread) -> None:
        with self._lock:
            host = peer_address(peer)
            self._from[host] -= 1
            if not self._from[host]:
                del self._from[host]
            del self._open[thread]

    def _answer(self, line: Line, peer: str) -> bool:
        """One call; whether the connection is good for another."""
        try:
            handler, context, messages = self._called(line), BulkContext(line, peer), _Messages(line)
            with closing(_replies(handler, messages, context, line)) as replies:
                for reply in replies:
                    line.send(Frame.MESSAGE, *_parts(reply))
            messages.expect_end()
            line.send(Frame.END)
        except (BulkAborted, MalformedMessage) as ended:
            error = ended.error if isinstance(ended, BulkAborted) else ended
            line.wait_at_most(DRAIN_SECONDS)
            line.send(Frame.ERROR, error_detail(error))
            line.drain(DRAIN_SECONDS)
            return False
        return True

    def _called(self, line: Line) -> Any:
        """The handler of what the first frame calls."""
        if line.protocol != ALPN:
            raise LineBroken(f"the other side does not speak {ALPN}")
        line.end_within(HANDSHAKE_SECONDS)
        kind, content = line.receive()
        handler = self._methods.get(bytes(content[:16])) if kind is Frame.CALL else None
        if handler is None:
            raise MalformedMessage(
                f"A bulk connection begins with a CALL of {' or '.join(sorted(map(bytes.decode, self._methods)))}, "
                f"got {kind.name} with {len(content):,} bytes."
            )
        line.wait_at_most(None)  # from here on the sweep over open calls sees to it
        return handler

    def _context(self) -> ssl.SSLContext:
        """Made anew where what is to be served changed."""
        tls = self._tls.current()
        with self._lock:
            if self._served is None or self._served[0] != tls:
                self._served = (tls, server_context(tls))
            return self._served[1]


class BulkAborted(Exception):
    """A handler's call ended with an error that goes to the caller."""

    def __init__(self, error: LLMasOSError) -> None:
        super().__init__(error)
        self.error = error


class BulkContext:
    """What the interceptor and the door ask of grpc's context, for a call on a line."""

    def __init__(self, line: Line, peer: str) -> None:
        self._line, self._peer = line, peer
        self._ended = False

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """As grpc gives it: SPIFFE IDs are the URIs of the certificate's alternative names, and no other kind of name."""
        certificate = x509.load_der_x509_certificate(self._line.peer_certificate)
        return {
            "peer_spiffe_id": [uri.encode() for uri in _uris(certificate) if uri.startswith("spiffe://")],
            "x509_pem_cert": [certificate.public_bytes(Encoding.PEM)],
        }

    def is_active(self) -> bool:
        return not self._ended

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return False  # for methods that only gRPC's listener has

    def cancel(self) -> None:
        self._ended = True
        self._line.cut()

    def abort_with(self, error: LLMasOSError) -> NoReturn:
        """
        Raises:
            BulkAborted: always.
        """
        self._ended = True
        raise BulkAborted(error)


def _methods(interceptor: Interceptor, blobs: Any) -> Mapping[bytes, Any]:
    """Handlers by the name in a CALL, as the interceptor makes them for gRPC."""
    plain = {
        b"Get": grpc.unary_stream_rpc_method_handler(blobs.Get, request_deserializer=_get_request),
        b"Put": grpc.stream_unary_rpc_method_handler(blobs.Put, request_deserializer=unframe_put),
    }

    def made(name: bytes) -> Any:
        return interceptor.intercept_service(lambda _: plain[name], _Details(f"/llmasos.v1.Blobs/{name.decode()}"))

    return {name: made(name) for name in plain}


def _get_request(content: memoryview) -> blobs_pb2.GetRequest:
    request = blobs_pb2.GetRequest.FromString(bytes(content))
    request.most_piece_bytes = min(request.most_piece_bytes or PIECE_BYTES, PIECE_BYTES)
    return request


class _Messages:
    """What the caller sends. A line that breaks ends it, as it ends a stream of gRPC's: what is missing is then found out."""

    def __init__(self, line: Line) -> None:
        self._line, self._ended = line, False
        self._broken: LineBroken | None = None

    def __iter__(self) -> _Messages:
        return self

    def __next__(self) -> memoryview:
        if self._ended:
            raise StopIteration
        try:
            kind, content = self._line.receive()
        except LineBroken as broken:
            self._broken = broken
            kind, content = Frame.END, memoryview(b"")
        if kind is Frame.END:
            self._ended = True
            raise StopIteration
        if kind is not Frame.MESSAGE:
            raise MalformedMessage(f"A frame of the bulk protocol: expected MESSAGE or END, got {kind.name}.")
        return content

    def expect_end(self) -> None:
        """
        Raises:
            MalformedMessage: the caller sent more than the call takes.
            LineBroken: the line did before the end; it carries no other call.
        """
        if next(self, None) is not None:
            raise MalformedMessage("A call of the bulk protocol: expected END after its one message, got another.")
        if self._broken is not None:
            raise self._broken


def _parts(reply: Any) -> tuple[bytes | memoryview, ...]:
    return piece_parts(reply) if isinstance(reply, Piece) else (reply.SerializeToString(),)


def _replies(handler: Any, messages: _Messages, context: BulkContext, line: Line) -> Generator[Any]:
    """What the handler answers. Once it is done, no sweep sees to the call: what is left of it has a deadline instead.

    Close it: a handler that is not read to its end gives back what it holds then.
    """
    if handler.response_streaming:
        yield from handler.stream_stream(messages, context)
        line.end_within(HANDSHAKE_SECONDS)
    else:
        reply = handler.stream_unary(messages, context)
        line.end_within(HANDSHAKE_SECONDS)
        yield reply


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _peer(address: tuple[Any, ...]) -> str:
    """As grpc writes it."""
    host, port = address[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
