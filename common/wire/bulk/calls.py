"""The calling end of the bulk protocol: Put and Get as gRPC's stub of the Blobs service gives them, on other connections.

    blobs = BulkBlobs(grpc_stub, connect)      # Begin and Leaves go over gRPC as before
    for piece in blobs.Get(request): …                                # a piece is valid until the next
    reply = blobs.Put.future(messages).result(timeout=0.5)

Calls fail with the error that the coordinator raised, or CoordinatorUnreachable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.errors import CoordinatorUnreachable, LLMasOSError, MalformedMessage
from common.wire.bulk.line import Frame, Line, LineBroken, unreachable
from common.wire.errors import error_from_detail
from common.wire.framing import put_parts, unframe_piece
from common.wire.v1 import blobs_pb2

IDLE_SECONDS = 60.0
"""Nothing came, or nothing could be sent, for so long: the connection is given up."""
REPLY_SECONDS = 600.0
"""A blob's last bytes wait for the coordinator's disk before they are answered."""


class BulkBlobs:
    """A stub for one transfer: Put and Get over connections of their own; any thread."""

    def __init__(self, stub: Any, connect: Callable[[], Line]) -> None:
        """
        Args:
            stub: gRPC's, for all other calls.
            connect: a new line to the bulk listener; raises LLMasOSError.
        """
        self._stub, self._connect = stub, connect
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._idle: list[Line] = []
        self._closed = False
        self.Put = self  # gRPC's stub has the call that does not wait at stub.Put.future

    def __getattr__(self, method: str) -> Any:
        return getattr(self._stub, method)

    def Get(self, request: blobs_pb2.GetRequest) -> BulkGet:  # noqa: N802  gRPC's name
        """Pieces as they come. Iterate once."""
        return BulkGet(self, request)

    def future(self, messages: Iterator[Any]) -> BulkPut:
        """Begins a Put; `messages` is read in a thread of its own."""
        return BulkPut(self, messages)

    def close(self) -> None:
        """Ends calls in progress; later ones fail."""
        with self._lock:
            self._closed = True
            lines, idle, self._idle = list(self._lines), self._idle, []
        for line in lines:
            line.cut()
        for line in idle:
            line.close()

    @contextmanager
    def line(self, method: bytes, call: _Call) -> Iterator[Line]:
        """A connection on which `method` was called; one that another call has done with is as good as a new one.

        Raises:
            CoordinatorUnreachable: there is none, or it broke.
        """
        line, done = self._free() or self._connect(), False
        try:
            with self._lock:
                if self._closed:
                    raise CoordinatorUnreachable("The session was closed on this side.")
                self._lines.add(line)
            call.begun(line)
            line.wait_at_most(IDLE_SECONDS)
            line.send(Frame.CALL, method)
            yield line
            call.over()
            done = True
        except LineBroken as err:
            raise unreachable(err) from err
        finally:
            self._give_back(line, reusable=done)

    def _give_back(self, line: Line, *, reusable: bool) -> None:
        with self._lock:
            self._lines.discard(line)
            if reusable and not self._closed:
                self._idle.append(line)
                return
        line.close()

    def _free(self) -> Line | None:
        with self._lock:
            while self._idle:
                line = self._idle.pop()
                if not line.has_input():
                    return line
                line.close()  # between calls nothing comes but the end
            return None


class _Call:
    """Cancelled, it cuts its line, also one that is only being made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: Line | None = None
        self.cancelled = False

    def begun(self, line: Line) -> None:
        """The connection stands; the call may have been cancelled before."""
        with self._lock:
            self._line = line
            if self.cancelled:
                line.cut()

    def over(self) -> None:
        """All of the call came: the connection is no longer its."""
        with self._lock:
            self._line = None

    def cancel(self) -> None:
        """From any thread, as often as wanted."""
        with self._lock:
            self.cancelled = True
            if self._line is not None:
                self._line.cut()


class BulkGet(_Call):
    """One Get."""

    def __init__(self, blobs: BulkBlobs, request: blobs_pb2.GetRequest) -> None:
        super().__init__()
        self._blobs, self._request = blobs, request

    def __iter__(self) -> Iterator[Any]:
        with self._blobs.line(b"Get", self) as line:
            line.send(Frame.MESSAGE, self._request.SerializeToString())
            line.send(Frame.END)
            while (content := _message(line)) is not None:
                yield _decoded(unframe_piece, content)


class BulkPut(_Call):
    """One Put, in a thread of its own; asked as a future of gRPC is."""

    def __init__(self, blobs: BulkBlobs, messages: Iterator[Any]) -> None:
        super().__init__()
        self._blobs, self._messages = blobs, messages
        thread = ThreadPoolExecutor(1, thread_name_prefix="bulk-put")
        self._future = thread.submit(self._run)
        thread.shutdown(wait=False)

    def result(self, timeout: float) -> Any:
        """The reply.

        Raises:
            grpc.FutureTimeoutError, grpc.FutureCancelledError: as its futures do.
            LLMasOSError: the call failed.
        """
        if not wait([self._future], timeout).done:
            raise grpc.FutureTimeoutError
        if self.cancelled:
            raise grpc.FutureCancelledError
        return self._future.result()

    def _run(self) -> Any:
        with self._blobs.line(b"Put", self) as line:
            return self._put(line)

    def _put(self, line: Line) -> Any:
        try:
            for message in self._messages:
                if line.has_input():
                    break  # nothing is said before the end but a refusal
                line.send(Frame.MESSAGE, *put_parts(message))
            else:
                line.send(Frame.END)
        except LineBroken as broken:
            raise _said(line) or broken from broken
        line.wait_at_most(REPLY_SECONDS)
        content = _message(line)
        if content is None:
            raise MalformedMessage("The coordinator ended a Put without its reply.")
        reply = _decoded(blobs_pb2.PutResponse.FromString, bytes(content))
        if _message(line) is not None:
            raise MalformedMessage("The coordinator answered a Put twice.")
        return reply


def _said(line: Line) -> LLMasOSError | None:
    """The refusal that came before the line broke, if one did."""
    try:
        _message(line)
    except LLMasOSError as refusal:
        return refusal
    except LineBroken:
        return None
    return None


def _message(line: Line) -> memoryview | None:
    """The next message; None: that was all.

    Raises:
        LLMasOSError: what the coordinator raised.
        LineBroken: the connection is no more.
    """
    kind, content = line.receive()
    match kind:
        case Frame.MESSAGE:
            return content
        case Frame.END:
            return None
        case Frame.ERROR:
            raise error_from_detail(bytes(content))
    raise MalformedMessage(f"A frame of the bulk protocol: expected a reply, got {kind.name}.")


def _decoded(decode: Callable[[Any], Any], content: Any) -> Any:
    try:
        return decode(content)
    except DecodeError as err:
        raise MalformedMessage("The coordinator's reply is not the message that this call gives.") from err
