"""The calling end of the work listener, and of the enrolment listener: one object for channel, stubs, deadlines and errors.

    with Session(address, genesis, TlsFiles(key, certificate)) as session:
        entries = session.follow(from_index=0, wait_seconds=30)
        index = session.submit(envelope)

A call fails with the error that the coordinator raised, or CoordinatorUnreachable. Any thread may call; `renew` puts a fresh
channel under all later calls, `close` ends those in progress.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import CoordinatorUnreachable, StorageFailure
from common.statements.kinds import Genesis
from common.wire import convert
from common.wire.channel import enrolment_channel, work_channel
from common.wire.errors import rpc_errors
from common.wire.messages import (
    ActivityReport,
    Diagnosis,
    Enrolment,
    EnrolmentRequest,
    LedgerEntries,
    MetricsRecord,
    Purpose,
)
from common.wire.transfer import TransferOptions, WholeBlob, download, upload
from common.wire.v1 import blobs_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc, operations_pb2_grpc, work_pb2_grpc

CALL_SECONDS = 30.0
COMMAND_SECONDS = 120.0
"""Commands wait for the coordinator's engine, which may be writing a model."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Private key and certificate of this end; read anew at each (re)connection."""

    key: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class Stubs:
    """All services of the work listener over one channel."""

    channel: Any
    work: Any
    blobs: Any
    operations: Any


class Session:
    """One member's connection to the work listener. The channel is made at the first call."""

    def __init__(self, address: str, genesis: Genesis, tls: TlsFiles) -> None:
        self.address = address
        self._genesis, self._tls = genesis, tls
        self._lock = threading.Lock()
        self._stubs: Stubs | None = None
        self._closed = False

    # --- control plane ------------------------------------------------------------------------------------------------

    def follow(self, *, from_index: int, wait_seconds: float) -> LedgerEntries:
        """Ledger entries from `from_index` on; waits up to `wait_seconds` (30 at most) for the first."""
        request = convert.follow_request_to_wire(from_index, wait_seconds=wait_seconds)
        reply = self.call(lambda stubs: stubs.work.Follow(request, timeout=CALL_SECONDS + wait_seconds))
        return convert.entries_from_wire(reply, from_index=from_index)

    def submit(self, envelope: bytes, metrics: MetricsRecord | None = None) -> int:
        """The ledger index of a signed statement; the same bytes again give the same index."""
        request = convert.submit_request_to_wire(envelope, metrics)
        return int(self.call(lambda stubs: stubs.work.Submit(request, timeout=COMMAND_SECONDS)).index)

    def report(self, report: ActivityReport) -> bool:
        """Renews the lease; whether the round still takes contributions."""
        request = convert.report_to_wire(report)
        return bool(self.call(lambda stubs: stubs.work.Report(request, timeout=CALL_SECONDS)).round_open)

    # --- data plane ---------------------------------------------------------------------------------------------------

    def upload(self, blob: WholeBlob, purpose: Purpose, options: TransferOptions | None = None) -> bool:
        """As common.wire.transfer.upload, over the channel of the moment."""
        return upload(_Blobs(self), blob, purpose, options)

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        """As common.wire.transfer.download, over the channel of the moment."""
        return download(_Blobs(self), ref, store, owner, options)

    # --- the channel --------------------------------------------------------------------------------------------------

    def call(self, make: Callable[[Stubs], T]) -> T:
        """Makes one call.

        Raises:
            LLMasOSError: what the coordinator raised, or CoordinatorUnreachable.
        """
        with rpc_errors(self.address):
            return make(self.stubs())

    def stubs(self) -> Stubs:
        """Stubs over the channel of the moment.

        Raises:
            CoordinatorUnreachable: the session was closed.
            StorageFailure: the key or the certificate cannot be read.
        """
        with self._lock:
            if self._closed:
                raise CoordinatorUnreachable("The session was closed on this side.")
            if self._stubs is None:
                self._stubs = self._connect()
            return self._stubs

    def renew(self) -> None:
        """Drops the channel: the next call makes a new one from the files as they are then."""
        with self._lock:
            stubs, self._stubs = self._stubs, None
        if stubs is not None:
            stubs.channel.close()

    def close(self) -> None:
        """Ends calls in progress; later ones fail."""
        with self._lock:
            self._closed = True
        self.renew()

    def _connect(self) -> Stubs:
        genesis = self._genesis
        channel = work_channel(
            self.address,
            consortium=genesis.consortium,
            ca_pem=genesis.ca_certificate.encode(),
            key_pem=_read(self._tls.key),
            cert_pem=_read(self._tls.certificate),
        )
        return Stubs(
            channel=channel,
            work=work_pb2_grpc.WorkStub(channel),
            blobs=blobs_pb2_grpc.BlobsStub(channel),
            operations=operations_pb2_grpc.OperationsStub(channel),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Blobs:
    """A Blobs stub that takes each call to the session's channel of the moment, so that a transfer outlives `renew`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, method: str) -> Any:
        return getattr(self._session.stubs().blobs, method)


def enrol(address: str, *, consortium: str, ca_pem: bytes, request: EnrolmentRequest) -> Enrolment:
    """Redeems an invitation; the same request again gives the same answer.

    Raises:
        LLMasOSError: what the coordinator raised, or CoordinatorUnreachable.
    """
    message = convert.enrolment_request_to_wire(request)
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = enrolment_pb2_grpc.EnrolmentStub(channel).Enrol(message, timeout=COMMAND_SECONDS)
    return convert.enrolment_from_wire(reply)


def diagnose(address: str, *, consortium: str, ca_pem: bytes, certificate_pem: bytes) -> Diagnosis:
    """What the coordinator says of a certificate that its work listener refuses.

    Raises:
        LLMasOSError: as `enrol`.
    """
    message = enrolment_pb2.DiagnoseRequest(certificate_pem=certificate_pem.decode("ascii", "replace"))
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = enrolment_pb2_grpc.EnrolmentStub(channel).Diagnose(message, timeout=CALL_SECONDS)
    return convert.diagnosis_from_wire(reply)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageFailure(f"{path} cannot be read: {error.strerror}.") from error
