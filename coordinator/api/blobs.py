"""Blobs: the data plane. Bytes go between the stream and the store, 4 MiB at a time, and never pass the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.wire.channel import piece_bytes
from common.wire.chunks import ChunkReceiver, ChunkSender
from common.wire.convert import leaves_to_wire, missing_to_wire
from common.wire.messages import Piece
from common.wire.v1 import blobs_pb2, common_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import begin_from_wire, get_from_wire, leaves_request_from_wire, put_from_wire
from coordinator.api.intake import Intake
from coordinator.ports import Access, Arrivals, BytesMoved


@dataclass(frozen=True, slots=True)
class BlobPorts:
    """What the data plane asks."""

    store: FolderBlobStore
    access: Access
    moved: BytesMoved
    arrivals: Arrivals


class _Streams:
    """How many blob streams are open; enter it with each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open = 0

    def __enter__(self) -> None:
        with self._lock:
            self.open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.open -= 1


class BlobsServicer:
    """The Blobs service, docs/protocol.md#blobs."""

    def __init__(self, ports: BlobPorts, intake: Intake, bulk_port: Callable[[], int] = lambda: 0) -> None:
        """
        Args:
            bulk_port: where callers reach the bulk listener; 0: nowhere.
        """
        self._bulk_port = bulk_port
        self._store, self._access, self._moved, self._arrivals = ports.store, ports.access, ports.moved, ports.arrivals
        self._intake = intake
        self._streams = _Streams()

    def Begin(self, request: blobs_pb2.BeginRequest, call: Call) -> blobs_pb2.BeginResponse:  # noqa: N802  gRPC's name
        wanted, leaves = begin_from_wire(request)
        call.purpose = wanted.purpose
        self._access.check_write(call.member, wanted.ref, wanted.purpose)
        opened = wanted.purpose.round_opened
        missing = self._intake.begin(call.member.name, wanted.ref, leaves, own=opened is not None)
        if missing and opened is not None:
            upload = self._intake.find(call.member.name, wanted.ref)
            if isinstance(upload, Upload):  # what is only sent again was inspected when it came first
                self._arrivals.follow(upload, opened)
        return missing_to_wire(missing, piece_bytes(max(self._streams.open, self._access.senders(wanted.purpose))))

    def Put(self, requests: Iterator[blobs_pb2.PutRequest], call: Call) -> blobs_pb2.PutResponse:  # noqa: N802
        wanted, incoming = put_from_wire(requests)
        call.purpose = wanted.purpose
        self._access.check_write(call.member, wanted.ref, wanted.purpose)
        upload = self._intake.find(call.member.name, wanted.ref)
        stored = 0
        with self._streams, ChunkReceiver(upload) as receiver:
            for piece in incoming:
                finished = receiver.add(piece)
                if finished is not None:
                    if wanted.purpose.recovery:
                        self._access.check_write(call.member, wanted.ref, wanted.purpose)  # also: the sender is busy
                    self._moved.moved(call.member.name, up=finished)
                    stored += 1
            # Where the connection breaks the stream ends too, often in the middle of a chunk: answered, and nobody's fault.
            call.recorded = False
            receiver.finish()
        return blobs_pb2.PutResponse(chunks_stored=stored, complete=self._intake.finish(call.member.name, upload))

    def Leaves(self, request: blobs_pb2.LeavesRequest, call: Call) -> common_pb2.LeafList:  # noqa: N802
        ref = leaves_request_from_wire(request)
        self._access.check_read(call.member, ref)
        return leaves_to_wire(self._store.leaves(ref))

    def Get(self, request: blobs_pb2.GetRequest, call: Call) -> Iterator[Piece]:  # noqa: N802
        wanted = get_from_wire(request)
        self._access.check_read(call.member, wanted.ref)
        with self._streams, self._store.open(wanted.ref) as reader:
            sender = ChunkSender(reader)
            for chunk in range(wanted.first, wanted.end):
                size = min(wanted.most_piece_bytes, piece_bytes(self._streams.open))
                yield from sender.pieces(chunk, verify=wanted.verify, piece_bytes=size)
                self._moved.moved(call.member.name, down=wanted.ref.chunk_size(chunk))

    def FindBulk(self, request: blobs_pb2.FindBulkRequest, call: Call) -> blobs_pb2.FindBulkResponse:  # noqa: N802
        return blobs_pb2.FindBulkResponse(port=self._bulk_port())
