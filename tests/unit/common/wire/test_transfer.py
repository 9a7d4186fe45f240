"""Transfers over a stub that breaks where a test says; behind it the real servicer and the real store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    BlobTooLarge,
    CoordinatorUnreachable,
    CorruptChunk,
    LLMasOSError,
    MalformedMessage,
    NotAuthorised,
)
from common.identity.keys import SigningKey
from common.statements.kinds import Member
from common.wire.channel import MESSAGE_BYTES, MOST_PIECE_BYTES
from common.wire.errors import status_of, trailing_metadata
from common.wire.lanes import SharedLane
from common.wire.messages import Purpose
from common.wire.transfer import Backoff, TransferOptions, download, upload
from common.wire.v1 import blobs_pb2, common_pb2
from coordinator.api.blobs import BlobPorts, BlobsServicer
from coordinator.api.intake import Intake
from tests.support.fake_ports import FakeAccess, FakeArrivals, FakeBytesMoved
from tests.support.rpc import FailedCall

ROUND = Purpose(round_opened="ab" * 32)
PIECES_A_CHUNK = CHUNK_BYTES // MESSAGE_BYTES
CONTENT = b"".join(bytes([value]) * CHUNK_BYTES for value in range(3)) + b"tail"
NORTH = Member(name="north", signing_key=SigningKey.generate().public, roles=("trainer",))


class Caller:
    """Stands in for the interceptor's Call."""

    member = NORTH


class Stub:
    """Calls the servicer directly; the n-th Put or Get breaks after `breaks[n]` messages, if it is not None."""

    def __init__(self, servicer: BlobsServicer) -> None:
        self._servicer = servicer
        self.breaks: list[int | None] = []
        self.begins = 0
        self.corrupt: int | None = None
        self.Put = self

    def Begin(self, request: Any, *, timeout: float) -> Any:  # noqa: N802
        self.begins += 1
        return _mapped(lambda: self._servicer.Begin(request, Caller()))  # type: ignore[arg-type]

    def Leaves(self, request: Any, *, timeout: float) -> Any:  # noqa: N802
        return _mapped(lambda: self._servicer.Leaves(request, Caller()))  # type: ignore[arg-type]

    def future(self, messages: Iterator[Any]) -> Done:
        """Put."""
        limit = self.breaks.pop(0) if self.breaks else None
        return Done(lambda: self._servicer.Put(_until(messages, limit), Caller()))  # type: ignore[arg-type]

    def Get(self, request: Any) -> Stream:  # noqa: N802
        limit = self.breaks.pop(0) if self.breaks else None
        replies = self._servicer.Get(request, Caller())  # type: ignore[arg-type]
        return Stream(_until(self._spoiled(replies), limit))

    def _spoiled(self, replies: Iterator[Any]) -> Iterator[Any]:
        for number, reply in enumerate(replies):
            if number == self.corrupt:
                reply = replace(reply, data=b"!" * len(reply.data))  # noqa: PLW2901
            yield reply


class Done:
    """A finished call's future."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def result(self, timeout: float) -> Any:
        return _mapped(self._call)

    def cancel(self) -> None:
        pass


class Stream:
    """A reply stream."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        return _mapped(lambda: next(self._messages))

    def cancel(self) -> None:
        self._messages = iter(())


def _mapped(call: Any) -> Any:
    try:
        return call()
    except LLMasOSError as error:
        raise FailedCall(status_of(error), "", trailing_metadata(error)) from error


def _until(messages: Iterator[Any], limit: int | None) -> Iterator[Any]:
    for number, message in enumerate(messages):
        if number == limit:
            raise FailedCall(grpc.StatusCode.UNAVAILABLE, "connection reset")
        yield message


class Ends:
    """Both ends of a transfer."""

    def __init__(self, folder: Path) -> None:
        self.theirs, self.ours = FolderBlobStore(folder / "theirs"), FolderBlobStore(folder / "ours")
        self.access, self.moved = FakeAccess(), FakeBytesMoved()
        self.sleeps: list[float] = []
        self.passed = 0
        self.options = TransferOptions(on_bytes=self._count, backoff=Backoff(retries=3), sleep=self.sleeps.append)
        self.restart()

    def restart(self) -> None:
        """The other side's process is a new one: it knows what lies on its disk."""
        self.stub = Stub(self.servicer())

    def servicer(self) -> BlobsServicer:
        return BlobsServicer(BlobPorts(self.theirs, self.access, self.moved, FakeArrivals()), Intake(self.theirs))

    def _count(self, count: int) -> None:
        self.passed += count

    def close(self) -> None:
        self.theirs.close()
        self.ours.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    both = Ends(tmp_path)
    yield both
    both.close()


def ingest(store: FolderBlobStore, folder: Path, content: bytes = CONTENT) -> BlobRef:
    path = folder / "source"
    path.write_bytes(content)
    return store.ingest(path, "blake3", move=False)


def send(ends: Ends, ref: BlobRef) -> bool:
    with ends.ours.open(ref) as reader:
        return upload([SharedLane(ends.stub)], reader, ROUND, ends.options)


def test_a_blob_goes_up_whole(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    assert send(ends, ref) is True
    assert ends.theirs.path(ref).read_bytes() == CONTENT
    assert (ends.passed, ends.moved.up, ends.sleeps) == (len(CONTENT), {"north": len(CONTENT)}, [])


@pytest.mark.parametrize("content", [b"", b"x", bytes(CHUNK_BYTES)])
def test_every_size_goes_up_and_comes_down(ends: Ends, tmp_path: Path, content: bytes) -> None:
    ref = ingest(ends.ours, tmp_path, content)
    assert send(ends, ref) is True
    ends.access.allow("north", ref)
    back = FolderBlobStore(tmp_path / "back")
    assert download([SharedLane(ends.stub)], ref, back, "north", ends.options) is True
    assert back.path(ref).read_bytes() == content


def sizes(ends: Ends, ref: BlobRef, way: str) -> set[int]:
    """Of the pieces that pass when the blob is sent, or fetched."""
    found: list[int] = []
    ends.options = replace(ends.options, on_bytes=found.append)
    if way == "up":
        assert send(ends, ref)
    else:
        ends.access.allow("north", ref)
        assert download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options)
    return set(found)


WHOLE_CHUNKS = bytes(2 * CHUNK_BYTES)


@pytest.mark.parametrize(("sending", "size"), [(4, 2**21), (5, 2**20), (16, 2**20), (17, 2**19), (33, 2**18)])
def test_pieces_are_smaller_the_more_send_at_once(ends: Ends, tmp_path: Path, sending: int, size: int) -> None:
    ends.access.sending = sending
    ends.options = replace(ends.options, most_piece_bytes=MOST_PIECE_BYTES)
    assert sizes(ends, ingest(ends.ours, tmp_path, WHOLE_CHUNKS), "up") == {size}


@pytest.mark.parametrize("way", ["up", "down"])
def test_pieces_are_no_larger_than_the_participant_wants(ends: Ends, tmp_path: Path, way: str) -> None:
    """A long way, or a limited one."""
    ref = ingest(ends.ours if way == "up" else ends.theirs, tmp_path, WHOLE_CHUNKS)
    assert sizes(ends, ref, way) == {MESSAGE_BYTES}


def test_pieces_that_are_fetched_are_large_while_few_fetch(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path, WHOLE_CHUNKS)
    ends.options = replace(ends.options, most_piece_bytes=MOST_PIECE_BYTES)
    assert sizes(ends, ref, "down") == {MOST_PIECE_BYTES}


def test_an_upload_resumes_at_the_chunk_that_the_break_cut(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    ends.stub.breaks = [1 + PIECES_A_CHUNK + 3]
    assert send(ends, ref) is True
    assert ends.theirs.path(ref).read_bytes() == CONTENT
    assert ends.moved.up == {"north": len(CONTENT)}
    assert ends.passed == len(CONTENT) + 3 * MESSAGE_BYTES
    assert ends.sleeps == [0.5]


def test_waits_double_and_start_over_with_progress(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    ends.stub.breaks = [1, 1, 1 + PIECES_A_CHUNK, 1, 1]
    assert send(ends, ref) is True
    # That the third stream got a chunk across shows in the Begin before the fourth.
    assert ends.sleeps == [0.5, 1.0, 2.0, 0.5, 1.0]


def test_an_upload_without_progress_ends_with_the_error(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    ends.stub.breaks = [0] * 9
    with pytest.raises(
        CoordinatorUnreachable, match=r"No answer from the coordinator, UNAVAILABLE: connection reset\."
    ):
        send(ends, ref)
    assert ends.sleeps == [0.5, 1.0, 2.0]


def test_a_refused_upload_is_not_tried_again(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    ends.access.refusal = BlobTooLarge("Expected 512 bytes, got 12,582,916.")
    with pytest.raises(BlobTooLarge, match=r"Expected 512 bytes, got 12,582,916\."):
        send(ends, ref)
    assert (ends.stub.begins, ends.sleeps) == (1, [])


def test_an_upload_survives_a_restart_of_the_other_side(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    ends.stub.breaks = [1 + 2 * PIECES_A_CHUNK, 0, 0, 0, 0]
    with pytest.raises(CoordinatorUnreachable):
        send(ends, ref)
    ends.theirs.close()
    ends.theirs = FolderBlobStore(tmp_path / "theirs")
    ends.restart()
    before = ends.passed
    assert send(ends, ref) is True
    assert ends.passed - before == CHUNK_BYTES + len(b"tail")
    assert ends.theirs.path(ref).read_bytes() == CONTENT


def test_a_put_without_begin_says_to_begin(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    real = ends.stub.future

    def forgetful(messages: Iterator[Any]) -> Any:
        ends.stub.future = real  # type: ignore[method-assign]
        begins = ends.stub.begins
        ends.restart_intake()
        ends.stub.begins = begins
        return ends.stub.future(messages)

    def restart_intake() -> None:
        ends.stub._servicer = BlobsServicer(
            BlobPorts(ends.theirs, ends.access, ends.moved, FakeArrivals()), Intake(ends.theirs)
        )

    ends.restart_intake = restart_intake  # type: ignore[attr-defined]
    ends.stub.future = forgetful  # type: ignore[method-assign]
    assert send(ends, ref) is True
    assert (ends.stub.begins, ends.sleeps) == (2, [0.5])


def test_a_blob_damaged_on_our_disk_is_our_error(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    with ends.ours.path(ref).open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"!")
    with pytest.raises(CorruptChunk, match=r"Chunk 1 of blob blake3:.* was changed on disk"):
        send(ends, ref)
    assert ends.sleeps == [0.5], "the other side found it, then we looked ourselves"


def test_a_blob_damaged_on_the_other_sides_disk_is_said_to_be(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    with ends.theirs.path(ref).open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"!")
    with pytest.raises(CorruptChunk, match=r"Chunk 1 of blob blake3:.* was changed on disk"):
        download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options)
    assert not ends.ours.contains(ref)


def test_a_stopped_upload_returns_false_and_keeps_what_arrived(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    stop, passed = threading.Event(), 0

    def count_and_stop(count: int) -> None:
        nonlocal passed
        passed += count
        if passed >= CHUNK_BYTES + MESSAGE_BYTES:
            stop.set()

    options = TransferOptions(on_bytes=count_and_stop, stop=stop)
    with ends.ours.open(ref) as reader:
        assert upload([SharedLane(ends.stub)], reader, ROUND, options) is False
    assert not ends.theirs.contains(ref)
    assert ends.moved.up == {"north": CHUNK_BYTES}


def test_a_blob_comes_down_whole(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    assert download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options) is True
    assert ends.ours.path(ref).read_bytes() == CONTENT
    assert (ends.passed, ends.moved.down) == (len(CONTENT), {"north": len(CONTENT)})


def test_a_download_resumes_at_the_chunk_that_the_break_cut(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    ends.stub.breaks = [PIECES_A_CHUNK + 3]
    assert download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options) is True
    assert ends.ours.path(ref).read_bytes() == CONTENT
    assert ends.passed == len(CONTENT) + 3 * MESSAGE_BYTES
    assert ends.sleeps == [0.5]


def test_a_blob_that_is_here_is_not_fetched(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.ours, tmp_path)
    assert download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options) is True
    assert ends.passed == 0


def test_a_blob_that_we_may_not_read_is_refused_at_once(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    with pytest.raises(NotAuthorised, match=r"No statement gives north blob blake3:"):
        download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options)
    assert ends.sleeps == []


def test_corrupt_bytes_from_the_other_side_never_reach_the_store(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    ends.stub.corrupt = 1
    with pytest.raises(CorruptChunk, match=r"Chunk \d of blob .* does not have the digest that its leaf list names"):
        download([SharedLane(ends.stub)], ref, ends.ours, "north", ends.options)
    assert not ends.ours.contains(ref)
    assert ends.sleeps == [0.5, 1.0, 2.0]


def test_a_stopped_download_returns_false(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    options = TransferOptions(on_bytes=lambda _: options.stop.set())
    assert download([SharedLane(ends.stub)], ref, ends.ours, "north", options) is False
    assert not ends.ours.contains(ref)


def test_a_range_outside_the_blob_is_refused(ends: Ends, tmp_path: Path) -> None:
    ref = ingest(ends.theirs, tmp_path)
    ends.access.allow("north", ref)
    wire = common_pb2.BlobRef(algorithm=ref.algorithm, size=ref.size, root=bytes.fromhex(ref.root))
    for first, chunks in [(0, 0), (0, 5), (4, 1), (2**32 - 1, 2**32 - 1)]:
        request = blobs_pb2.GetRequest(ref=wire, first_chunk=first, chunks=chunks)
        with pytest.raises(
            MalformedMessage, match=r"GetRequest.chunks: expected at least one chunk and all of them inside 4"
        ):
            next(ends.stub._servicer.Get(request, Caller()))  # type: ignore[arg-type]


def test_back_off_is_bounded() -> None:
    waits = [Backoff().wait_seconds(failures) for failures in (1, 2, 3, 6, 1000)]
    assert waits == [0.5, 1.0, 2.0, 15.0, 15.0]
