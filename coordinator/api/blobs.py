"""Blobs: the data plane. Bytes go between the stream and the store, 4 MiB at a time, and never pass the engine."""

from __future__ import annotations

from collections.abc import Iterator

from common.blobs.reader import chunk_buffer
from common.blobs.store import FolderBlobStore
from common.wire.chunks import ChunkAssembler, pieces
from common.wire.convert import leaves_to_wire, missing_to_wire, piece_to_wire
from common.wire.v1 import blobs_pb2, common_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import begin_from_wire, get_from_wire, leaves_request_from_wire, put_from_wire
from coordinator.api.intake import Intake
from coordinator.ports import Access, BytesMoved


class BlobsServicer:
    """The Blobs service, docs/protocol.md#blobs."""

    def __init__(self, store: FolderBlobStore, access: Access, moved: BytesMoved, intake: Intake) -> None:
        self._store, self._access, self._moved, self._intake = store, access, moved, intake

    def Begin(self, request: blobs_pb2.BeginRequest, call: Call) -> blobs_pb2.BeginResponse:  # noqa: N802  gRPC's name
        wanted, leaves = begin_from_wire(request)
        call.purpose = wanted.purpose
        self._access.check_write(call.member, wanted.ref, wanted.purpose)
        own = wanted.purpose.plan is None
        return missing_to_wire(self._intake.begin(call.member.name, wanted.ref, leaves, own=own))

    def Put(self, requests: Iterator[blobs_pb2.PutRequest], call: Call) -> blobs_pb2.PutResponse:  # noqa: N802
        wanted, incoming = put_from_wire(requests)
        call.purpose = wanted.purpose
        self._access.check_write(call.member, wanted.ref, wanted.purpose)
        upload = self._intake.find(call.member.name, wanted.ref)
        assembler, stored = ChunkAssembler(wanted.ref), 0
        for piece in incoming:
            finished = assembler.add(piece)
            if finished is not None:
                chunk, content = finished
                upload.write(chunk, content)
                self._moved.moved(call.member.name, up=len(content))
                stored += 1
        # Where the connection breaks the stream ends too, often in the middle of a chunk: answered, and nobody's fault.
        call.recorded = False
        assembler.finish()
        return blobs_pb2.PutResponse(chunks_stored=stored, complete=self._intake.finish(call.member.name, upload))

    def Leaves(self, request: blobs_pb2.LeavesRequest, call: Call) -> common_pb2.LeafList:  # noqa: N802
        ref = leaves_request_from_wire(request)
        self._access.check_read(call.member, ref)
        return leaves_to_wire(self._store.leaves(ref))

    def Get(self, request: blobs_pb2.GetRequest, call: Call) -> Iterator[common_pb2.ChunkPiece]:  # noqa: N802
        wanted = get_from_wire(request)
        self._access.check_read(call.member, wanted.ref)
        with self._store.open(wanted.ref) as reader:
            buffer = chunk_buffer(wanted.ref)
            for chunk in range(wanted.first, wanted.end):
                content = reader.read_chunk(chunk, buffer)
                for piece in pieces(chunk, content):
                    yield piece_to_wire(piece)
                self._moved.moved(call.member.name, down=len(content))
