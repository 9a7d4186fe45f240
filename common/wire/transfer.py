"""The calling end of the data plane: a blob goes up or comes down, whatever the connections do meanwhile.

    upload:    Begin ─▶ missing chunks ─▶ Put … (stream breaks) … Begin ─▶ what is still missing ─▶ Put ─▶ complete
    download:  Leaves ─▶ store.begin ─▶ missing chunks ─▶ Get … (stream breaks) … Get what is still missing ─▶ finish

Over several lanes, several Puts or Gets work off one pool of missing chunks (common/wire/crew.py). Nothing is sent or fetched
twice but the chunk that a break cut. Waits between attempts double up to a limit and start over after each attempt that got a
chunk further. One 4 MiB buffer a stream, at both ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.errors import (
    CoordinatorUnreachable,
    CorruptChunk,
    LLMasOSError,
    MissingBlob,
    TooManyRequests,
    TruncatedChunk,
)
from common.wire import convert
from common.wire.channel import MESSAGE_BYTES
from common.wire.chunks import ChunkReceiver, ChunkSender
from common.wire.crew import STOP_POLL_SECONDS, ChunkPool, Crew
from common.wire.errors import rpc_errors
from common.wire.lanes import Lane
from common.wire.messages import Purpose, TransferProgress
from common.wire.pacing import Pacer
from common.wire.tally import Tally

CALL_SECONDS = 60.0
_TRY_AGAIN = (CoordinatorUnreachable, TooManyRequests, CorruptChunk, TruncatedChunk)
_BEGIN_AGAIN = (*_TRY_AGAIN, MissingBlob)
"""MissingBlob answers a Put whose Begin the coordinator has forgotten in a restart."""


class WholeBlob(Protocol):
    """A blob to send, with its leaf list: common.blobs.reader.BlobReader is one."""

    @property
    def ref(self) -> BlobRef: ...

    leaves: bytes

    def read_chunk(self, index: int, into: memoryview) -> memoryview: ...

    def read_unverified(self, position: int, into: memoryview) -> None: ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how soon to try again: 0.5 s, 1, 2 … at most 15 s; about two minutes without progress."""

    retries: int = 10
    first_seconds: float = 0.5
    most_seconds: float = 15.0

    def wait_seconds(self, failures: int) -> float:
        """Before the attempt that follows the `failures`-th failure in a row."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a transfer behaves towards its surroundings.

    Args:
        on_bytes: told of payload bytes as they pass, also of those that a break makes pass again; by one thread at a time.
        on_progress: told with them where the transfer stands.
        pacer: keeps it from being faster than allowed.
        stop: set from another thread, it ends the transfer; chunks that arrived stay.
        sleep: waits so many seconds; by default it ends early when `stop` is set.
        most_piece_bytes: pieces are not larger, whatever the other side has room for.
        durable, instead_of: of a download, as FolderBlobStore.begin takes them.
    """

    on_bytes: Callable[[int], object] = lambda count: None
    on_progress: Callable[[TransferProgress], object] = lambda progress: None
    pacer: Pacer = field(default_factory=Pacer)
    stop: threading.Event = field(default_factory=threading.Event)
    backoff: Backoff = Backoff()
    sleep: Callable[[float], object] | None = None
    most_piece_bytes: int = MESSAGE_BYTES
    durable: bool = True
    instead_of: BlobRef | None = None

    def pause(self, failures: int) -> None:
        """Waits before the next attempt."""
        (self.sleep or self.stop.wait)(self.backoff.wait_seconds(failures))


def upload(lanes: Sequence[Lane], source: WholeBlob, purpose: Purpose, options: TransferOptions | None = None) -> bool:
    """Sends `source` until the other side holds it whole and durable, over one stream a lane at most.

    Returns:
        True when it does, False when `options.stop` was set before.

    Raises:
        LLMasOSError: a refusal at once; a broken connection after `options.backoff.retries` without progress.
    """
    options = options or TransferOptions()
    attempt = _Upload(lanes, source, purpose, options)
    return _persist(attempt.once, options, _BEGIN_AGAIN)


def download(
    lanes: Sequence[Lane], ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
) -> bool:
    """Fetches `ref` into `store`, each chunk checked against its leaf before it is written.

    Returns:
        True when the store holds it whole, False when `options.stop` was set before.

    Raises:
        LLMasOSError: as `upload`; BadBlobReference when the leaf list does not give the root.
    """
    options = options or TransferOptions()
    attempt = _Download(lanes, ref, store, owner, options)
    return _persist(attempt.once, options, _TRY_AGAIN)


@dataclass(slots=True)
class _Attempt:
    """What one attempt came to."""

    done: bool
    progress: bool
    failure: LLMasOSError | None = None


def _persist(once: Callable[[], _Attempt], options: TransferOptions, retryable: tuple[type[LLMasOSError], ...]) -> bool:
    failures = 0
    while not options.stop.is_set():
        attempt = once()
        if attempt.done:
            return True
        if options.stop.is_set():
            break
        if attempt.failure is not None and not isinstance(attempt.failure, retryable):
            raise attempt.failure
        failures = 1 if attempt.progress else failures + 1
        if failures > options.backoff.retries:
            raise attempt.failure or CoordinatorUnreachable("The transfer ended early again and again, with no error.")
        options.pause(failures)
    return False


class _Upload:
    def __init__(self, lanes: Sequence[Lane], source: WholeBlob, purpose: Purpose, options: TransferOptions) -> None:
        self._lanes, self._source, self._purpose, self._options = lanes, source, purpose, options
        self._tally = Tally(source.ref.size, options.on_bytes, options.on_progress)
        self._left: int | None = None
        self._complete = False
        self._careful = False
        self._piece_bytes = MESSAGE_BYTES

    def once(self) -> _Attempt:
        """Asks what is missing and sends it; progress shows in the next answer."""
        ref = self._source.ref
        try:
            with rpc_errors():
                request = convert.begin_request_to_wire(ref, self._source.leaves, self._purpose)
                reply = self._lanes[0].stub.Begin(request, timeout=CALL_SECONDS)
            missing = convert.missing_from_wire(reply, ref)
            wanted = convert.piece_bytes_from_wire(reply.piece_bytes)
            self._piece_bytes = min(wanted, self._options.most_piece_bytes)
        except LLMasOSError as failure:
            self._lanes[0].renew()
            return _Attempt(done=False, progress=False, failure=failure)
        self._tally.begin(_size(ref, missing))
        if not missing:
            return _Attempt(done=True, progress=True)
        left = sum(count for _, count in missing)
        progress, self._left = self._left is not None and left < self._left, left
        crew = Crew(ChunkPool(missing), self._lanes, self._options.stop, self._options.backoff)
        try:
            broken = crew.run(lambda lane: self._put(lane, crew))
        except _Ours as ours:
            raise ours.failure from ours
        return _Attempt(done=self._complete, progress=progress, failure=broken)

    def _put(self, lane: Lane, crew: Crew) -> None:
        """One stream, until the pool is empty. It begins with a chunk in hand: until that came the blob is not whole, and the
        coordinator does not let go of its Begin, however far the other streams are."""
        taken = crew.pool.take(1)
        if taken is None:
            return
        outgoing = _Outgoing(self._messages(crew, taken[0]))
        try:
            with rpc_errors(), crew.calling(lane.stub.Put.future(outgoing)) as call:
                reply = self._result(call, crew)
        except LLMasOSError as failure:
            if outgoing.given <= 1:  # the header alone: nothing of the chunk is on its way
                crew.pool.give_back(*taken)
            # What our own disk did wrong is no matter of trying again.
            if outgoing.failure is not None:
                raise _Ours(outgoing.failure) from failure
            self._careful = self._careful or isinstance(failure, CorruptChunk)  # is it our disk, or the way?
            raise
        if outgoing.failure is not None:
            raise _Ours(outgoing.failure)
        if reply is not None and reply.complete:
            self._complete = True

    def _messages(self, crew: Crew, first: int) -> Iterator[Any]:
        """Runs in a thread of grpc's."""
        yield convert.put_header_to_wire(self._source.ref, self._purpose)
        sender = ChunkSender(self._source)
        taken: tuple[int, int] | None = (first, 1)
        while taken is not None:
            for piece in sender.pieces(taken[0], verify=self._careful, piece_bytes=self._piece_bytes):
                self._options.pacer.take(len(piece.data), crew.stopped)
                if crew.stopped():
                    return
                yield piece
                self._tally.moved(len(piece.data))
            taken = crew.pool.take(1)

    def _result(self, call: Any, crew: Crew) -> Any:
        """The stream's answer, or None when told to stop: also while flow control holds the sender."""
        while True:
            try:
                return call.result(timeout=STOP_POLL_SECONDS)
            except grpc.FutureTimeoutError:
                if crew.stopped():
                    call.cancel()
                    return None
            except grpc.FutureCancelledError:
                return None


class _Ours(Exception):
    """A failure of this side's disk, which no other stream or attempt mends."""

    def __init__(self, failure: LLMasOSError) -> None:
        super().__init__(failure)
        self.failure = failure


class _Outgoing:
    """A request iterator that keeps what went wrong in it: grpc would only log it and cancel the call."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages
        self.failure: LLMasOSError | None = None
        self.given = 0

    def __iter__(self) -> _Outgoing:
        return self

    def __next__(self) -> Any:
        try:
            message = next(self._messages)
            self.given += 1
            return message
        except LLMasOSError as failure:
            self.failure = failure
            raise StopIteration from failure


class _Download:
    def __init__(
        self, lanes: Sequence[Lane], ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions
    ) -> None:
        self._lanes, self._ref, self._store, self._owner, self._options = lanes, ref, store, owner, options
        self._tally = Tally(ref.size, options.on_bytes, options.on_progress)
        self._upload: Upload | None = None
        self._careful = False

    def once(self) -> _Attempt:
        """Fetches what is missing, until it is all there or the streams break."""
        if self._store.contains(self._ref):
            return _Attempt(done=True, progress=True)
        try:
            upload = self._begun()
        except LLMasOSError as failure:
            self._lanes[0].renew()
            return _Attempt(done=False, progress=False, failure=failure)
        missing = upload.missing()
        self._tally.begin(_size(self._ref, missing))
        crew = Crew(ChunkPool(missing), self._lanes, self._options.stop, self._options.backoff)
        broken = crew.run(lambda lane: self._get(lane, crew, upload))
        progress = sum(count for _, count in upload.missing()) < sum(count for _, count in missing)
        if broken is not None:
            return _Attempt(done=False, progress=progress, failure=broken)
        try:
            return _Attempt(done=upload.finish(), progress=progress)
        except LLMasOSError as failure:
            return _Attempt(done=False, progress=progress, failure=failure)

    def _begun(self) -> Upload:
        if self._upload is None:
            self._upload = self._store.begin(
                self._ref,
                self._leaves(),
                owner=self._owner,
                durable=self._options.durable,
                instead_of=self._options.instead_of,
            )
        return self._upload

    def _leaves(self) -> bytes:
        if self._ref.chunks == 1 and self._ref.size:
            return bytes.fromhex(self._ref.root)  # a tree of one leaf is that leaf
        with rpc_errors():
            request = convert.leaves_request_to_wire(self._ref)
            message = self._lanes[0].stub.Leaves(request, timeout=CALL_SECONDS)
        return convert.leaves_from_wire(message, self._ref)

    def _get(self, lane: Lane, crew: Crew, upload: Upload) -> None:
        """One stream after the other, until the pool is empty."""
        while (taken := crew.pool.take_share(crew.size)) is not None:
            first, count = taken
            written = 0
            try:
                for _ in self._chunks(lane, crew, upload, first, count):
                    written += 1
            except CorruptChunk:
                self._careful = True  # the other side shall look whether it is its disk, or the way
                raise
            finally:
                crew.pool.give_back(first + written, count - written)
            if crew.stopped():
                return

    def _chunks(self, lane: Lane, crew: Crew, upload: Upload, first: int, count: int) -> Iterator[int]:
        """Sizes of finished chunks of one Get stream, in order; the stream is cancelled when the reader stops early."""
        request = convert.get_request_to_wire(
            self._ref, first, count, verify=self._careful, most_piece_bytes=self._options.most_piece_bytes
        )
        with rpc_errors(), crew.calling(lane.stub.Get(request)) as stream:
            begun = 0
            try:
                with ChunkReceiver(upload) as receiver:
                    for message in stream:
                        piece = convert.piece_from_wire(message)
                        self._options.pacer.take(len(piece.data), crew.stopped)
                        if crew.stopped():
                            return
                        begun += len(piece.data)
                        self._tally.moved(len(piece.data))
                        finished = receiver.add(piece)
                        if finished is not None:
                            begun = 0
                            yield finished
                    receiver.finish()
            finally:
                self._tally.lost(begun)


def _size(ref: BlobRef, ranges: Sequence[tuple[int, int]]) -> int:
    """Bytes of these chunks."""
    return sum(ref.chunk_size(chunk) for first, count in ranges for chunk in range(first, first + count))
