"""A peer that keeps to no rule: bare gRPC stubs over mutual TLS, bytes as they are given. Nothing of common.wire.session.

with WireClient(address, credentials) as peer:
    refusal(lambda: peer.submit(b"garbage"))          # Refused("malformed-statement", "INVALID_ARGUMENT")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from common.blobs.reference import BlobRef
from common.wire.v1 import (
    blobs_pb2,
    blobs_pb2_grpc,
    common_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    work_pb2,
    work_pb2_grpc,
)

CALL_SECONDS = 30.0


@dataclass(frozen=True)
class Credentials:
    """PEM texts of one end; without key and certificate only the server proves who it is."""

    authority: bytes
    server_name: str
    key: bytes | None = None
    certificate: bytes | None = None


class Refused(NamedTuple):
    """What a failed call ended with: our code, empty where the trailer is absent, and gRPC's status."""

    code: str
    status: str


def refusal(call: Callable[[], object]) -> Refused | None:
    """How the call was refused; None when it was not."""
    try:
        call()
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        detail = common_pb2.ErrorDetail.FromString(trailers.get("llmasos-error-bin", b""))
        assert not detail.code or (detail.message and detail.fix)
        return Refused(detail.code, error.code().name)
    return None


class WireClient:
    """One connection."""

    def __init__(self, address: str, credentials: Credentials) -> None:
        self._channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate),
            [
                ("grpc.ssl_target_name_override", credentials.server_name),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._work = work_pb2_grpc.WorkStub(self._channel)
        self._blobs = blobs_pb2_grpc.BlobsStub(self._channel)
        self._operations = operations_pb2_grpc.OperationsStub(self._channel)
        self._enrolment = enrolment_pb2_grpc.EnrolmentStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def raw(
        self,
        method: str,
        content: bytes,
        *,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        compression: grpc.Compression | None = None,
    ) -> bytes:
        """Any bytes to any method: `Work/Submit`; the reply's bytes."""
        call = self._channel.unary_unary(f"/llmasos.v1.{method}")
        return bytes(call(content, timeout=CALL_SECONDS, metadata=metadata, compression=compression))

    def raw_stream(self, method: str, messages: Iterable[bytes]) -> Any:
        """Any bytes one after another, and the call, which goes on: `Blobs/Put`."""
        return self._channel.stream_unary(f"/llmasos.v1.{method}").future(iter(messages))

    def putting(self, messages: Iterable[blobs_pb2.PutRequest]) -> Any:
        """A Put that goes on for as long as its messages come."""
        return self._blobs.Put.future(iter(messages))

    def getting(self, ref: BlobRef, chunks: int) -> Any:
        """A Get that is read at the caller's leisure."""
        return self._blobs.Get(blobs_pb2.GetRequest(ref=wire_ref(ref), first_chunk=0, chunks=chunks))

    def following(self, from_index: int, wait_milliseconds: int) -> Any:
        """A Follow that waits."""
        return self._work.Follow.future(
            work_pb2.FollowRequest(from_index=from_index, wait_milliseconds=wait_milliseconds)
        )

    def report(self, **fields: Any) -> bool:
        return bool(self._work.Report(work_pb2.ReportRequest(**fields), timeout=CALL_SECONDS).round_open)

    def estimate(self, **fields: Any) -> None:
        self._work.Estimate(work_pb2.EstimateRequest(**fields), timeout=CALL_SECONDS)

    def enrol(self, **fields: Any) -> Any:
        """On the enrolment listener."""
        return self._enrolment.Enrol(enrolment_pb2.EnrolRequest(**fields), timeout=CALL_SECONDS)

    def submit(self, envelope: bytes, metrics: bytes = b"", salt: bytes = b"") -> int:
        message = work_pb2.SubmitRequest(
            envelope=common_pb2.Envelope(json=envelope), metrics=metrics, metrics_salt=salt
        )
        return int(self._work.Submit(message, timeout=CALL_SECONDS).index)

    def follow(self, from_index: int = 0) -> list[bytes]:
        reply = self._work.Follow(work_pb2.FollowRequest(from_index=from_index), timeout=CALL_SECONDS)
        return [entry.envelope.json for entry in reply.entries]

    def begin(self, ref: BlobRef, leaves: bytes, purpose: blobs_pb2.Purpose) -> list[tuple[int, int]]:
        message = blobs_pb2.BeginRequest(ref=wire_ref(ref), leaves=common_pb2.LeafList(hashes=leaves), purpose=purpose)
        return [(each.first, each.count) for each in self._blobs.Begin(message, timeout=CALL_SECONDS).missing]

    def put(self, ref: BlobRef, purpose: blobs_pb2.Purpose, pieces: Iterable[tuple[int, int, bytes]]) -> bool:
        """Chunk, offset and bytes of each piece; whether the blob is whole then."""
        messages = [put_header(ref, purpose), *(put_piece(*each) for each in pieces)]
        return bool(self._blobs.Put(iter(messages), timeout=CALL_SECONDS).complete)

    def leaves(self, ref: BlobRef) -> bytes:
        reply = self._blobs.Leaves(blobs_pb2.LeavesRequest(ref=wire_ref(ref)), timeout=CALL_SECONDS)
        return bytes(reply.hashes)

    def get(self, ref: BlobRef, chunks: int = 1) -> bytes:
        message = blobs_pb2.GetRequest(ref=wire_ref(ref), first_chunk=0, chunks=chunks)
        return b"".join(piece.data for piece in self._blobs.Get(message, timeout=CALL_SECONDS))

    def list_runs(self) -> Any:
        return self._operations.ListRuns(operations_pb2.ListRunsRequest(), timeout=CALL_SECONDS)

    def diagnose(self, certificate: bytes) -> str:
        """On the enrolment listener: what is wrong with a certificate."""
        message = enrolment_pb2.DiagnoseRequest(certificate_pem=certificate.decode())
        return str(self._enrolment.Diagnose(message, timeout=CALL_SECONDS).code)


def put_header(ref: BlobRef, purpose: blobs_pb2.Purpose) -> blobs_pb2.PutRequest:
    return blobs_pb2.PutRequest(ref=wire_ref(ref), purpose=purpose)


def put_piece(chunk: int, offset: int, data: bytes) -> blobs_pb2.PutRequest:
    return blobs_pb2.PutRequest(piece=common_pb2.ChunkPiece(chunk=chunk, offset=offset, data=data))


def wire_ref(ref: BlobRef) -> common_pb2.BlobRef:
    return common_pb2.BlobRef(algorithm=ref.algorithm, size=ref.size, root=bytes.fromhex(ref.root))
