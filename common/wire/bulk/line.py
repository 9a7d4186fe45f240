"""One connection of the bulk protocol: frames over TLS, in buffers that are used again for each.

    frame    kind (1 byte) · length (4, big-endian) · that many bytes

    CALL     the method's name: the first frame of a connection, which carries one call
    MESSAGE  one protobuf message of it, either way
    END      no more messages from this side
    ERROR    an ErrorDetail: the call failed; the last frame of the listening end

TLS is worked over memory instead of the socket: one read or write of the socket for some hundred KiB, where OpenSSL on a socket
makes one or two for each record of 16 KiB. What is received is a view of the line's buffer, valid until the next `receive`.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import ssl
import struct
import time
from types import TracebackType
from typing import Self

from common.errors import CoordinatorUnreachable, MalformedMessage

SOCKET_BYTES = 256 * 1024
PIECE_BYTES = 256 * 1024
"""Fits with its copies into a core's cache; a larger one is no cheaper."""
MOST_FRAME_BYTES = 512 * 1024
"""Bounds what a peer can make this side hold: a piece and its head, or any other message of Put and Get."""
_HEAD = struct.Struct(">BI")
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 2), ("TCP_USER_TIMEOUT", 60_000))
"""A peer that is gone, cable and all, is noticed within a minute, also while nothing is sent."""


class Frame(enum.IntEnum):
    """Kinds of frames."""

    CALL = 1
    MESSAGE = 2
    END = 3
    ERROR = 4


class LineBroken(Exception):
    """The connection is no more, or the other side does not keep to TLS."""


class Line:
    """Used by one thread; `cut` by any."""

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, *, server_hostname: str | None, seconds: float
    ) -> None:
        """
        Args:
            connection: a socket with TCP connected; the line's from here on.
            server_hostname: the name in the other side's certificate; None: this is the listening side.
            seconds: for the whole handshake. Later waits have no limit: set one by `wait_at_most` or `end_within`.

        Raises:
            LineBroken: no handshake comes about. The socket is closed.
        """
        self._socket = connection
        self._until: float | None = None
        self._is_cut = False
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = memoryview(bytearray(SOCKET_BYTES))
        self._buffer = memoryview(bytearray(_HEAD.size))
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        try:
            _prepare(connection)
            self.end_within(seconds)
            self._shake_hands()
            self.wait_at_most(None)
        except OSError as err:
            connection.close()
            raise LineBroken(_words(err)) from err
        except LineBroken:
            connection.close()
            raise

    @property
    def peer_certificate(self) -> bytes:
        """The other side's, DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def protocol(self) -> str | None:
        """What both sides agreed to speak."""
        return self._tls.selected_alpn_protocol()

    def wait_at_most(self, seconds: float | None) -> None:
        """From here on the line breaks where nothing can be read or written for so long."""
        self._until = None
        self._socket.settimeout(seconds)

    def end_within(self, seconds: float) -> None:
        """From here on the line breaks after so many seconds, whatever drips in until then."""
        self._until = time.monotonic() + seconds
        self._socket.settimeout(seconds)

    def send(self, kind: Frame, *parts: bytes | memoryview) -> None:
        """One frame of all parts; returns when the kernel has it.

        Raises:
            LineBroken: the other side is gone.
        """
        head = _HEAD.pack(kind, sum(map(len, parts)))
        try:
            self._tls.write(b"".join((head, *parts[:-1])))
            if parts and len(parts[-1]):
                self._tls.write(parts[-1])  # as it is: the larger part is not copied
            self._flush()
        except OSError as err:
            raise LineBroken(_words(err)) from err

    def receive(self) -> tuple[Frame, memoryview]:
        """The next frame; its content is valid until the next call.

        Raises:
            LineBroken: the connection ended, or nothing came for as long as may be.
            MalformedMessage: what came is no frame of this protocol.
        """
        try:
            self._fill(self._buffer[: _HEAD.size])
            number, length = _HEAD.unpack_from(self._buffer)
            kind = _kind(number)
            if length > MOST_FRAME_BYTES:
                raise MalformedMessage(
                    f"A frame of the bulk protocol: expected at most {MOST_FRAME_BYTES:,} bytes, got {length:,}."
                )
            if length > len(self._buffer):
                self._buffer = memoryview(bytearray(length))
            content = self._buffer[:length]
            self._fill(content)
        except OSError as err:
            raise LineBroken(_words(err)) from err
        return kind, content

    def has_input(self) -> bool:
        """Whether the other side has said something that was not received yet."""
        try:
            return bool(self._tls.pending() or self._incoming.pending or self._readable.poll(0))
        except OSError as err:
            raise LineBroken(_words(err)) from err

    def drain(self, seconds: float) -> None:
        """Lets go of what still comes, so that what was sent is not lost with it; returns when the other side closes."""
        until = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(self._received):
                    return

    def cut(self) -> None:
        """From another thread: what waits here fails at once, and what came is read no more."""
        self._is_cut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._take_in()
            finally:
                with contextlib.suppress(OSError):
                    self._flush()  # an alert says why

    def _fill(self, view: memoryview) -> None:
        """Reads until `view` is full."""
        at, whole = 0, len(view)
        while at < whole:
            try:
                got = int(self._tls.read(whole - at, view[at:]))
            except ssl.SSLWantReadError:
                self._take_in()
                continue
            if not got:
                raise LineBroken("the other side closed the connection")
            at += got

    def _take_in(self) -> None:
        if self._outgoing.pending:
            self._flush()  # a change of keys is answered
        if self._until is not None:
            self._socket.settimeout(_left(self._until))
        got = self._socket.recv_into(self._received)
        if self._is_cut:
            raise LineBroken("it was ended on this side")
        if not got:
            raise LineBroken("the other side closed the connection")
        self._incoming.write(self._received[:got])

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._socket.sendall(self._outgoing.read())


def unreachable(err: LineBroken, address: str = "the coordinator") -> CoordinatorUnreachable:
    """What a broken line means to who called."""
    return CoordinatorUnreachable(f"The bulk connection to {address} broke off: {err}.")


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _kind(number: int) -> Frame:
    try:
        return Frame(number)
    except ValueError as err:
        raise MalformedMessage(
            f"A frame of the bulk protocol: expected kinds 1 to {max(Frame)}, got {number}."
        ) from err


def _prepare(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):  # not every system has each
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _words(err: Exception) -> str:
    if isinstance(err, ssl.SSLError):
        return f"TLS: {(err.reason or 'no reason given').lower().replace('_', ' ')}"
    if isinstance(err, TimeoutError):
        return "nothing could be read or written in time"
    return str(getattr(err, "strerror", None) or err)
