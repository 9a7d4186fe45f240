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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import CoordinatorUnreachable
from common.identity.tls_pair import TlsPair
from common.statements.kinds import Genesis
from common.wire import convert
from common.wire.bulk.way import BulkPort, BulkWay
from common.wire.channel import WINDOW_BYTES, enrolment_channel, work_channel
from common.wire.convert_log import (
    approve_request_to_wire,
    approved_from_wire,
    head_from_wire,
    proposals_from_wire,
    receipt_from_wire,
)
from common.wire.convert_recovery import present_to_wire, wanted_from_wire
from common.wire.errors import rpc_errors
from common.wire.framing import blobs_stub
from common.wire.handshake import Expected
from common.wire.messages import (
    ActivityReport,
    Approved,
    Cosignature,
    Diagnosis,
    Enrolment,
    EnrolmentRequest,
    Estimate,
    LedgerEntries,
    LogHead,
    MetricsRecord,
    Presented,
    Proposal,
    Purpose,
    RenewalRequest,
    Wanted,
)
from common.wire.pacing import Pacing
from common.wire.reach import fault_on_the_way
from common.wire.streams import Streams
from common.wire.transfer import TransferOptions, WholeBlob, download, upload
from common.wire.v1 import (
    blobs_pb2,
    enrolment_pb2,
    enrolment_pb2_grpc,
    log_pb2,
    log_pb2_grpc,
    operations_pb2_grpc,
    work_pb2,
    work_pb2_grpc,
)
from common.wire.ways import Link, Ways

CALL_SECONDS = 30.0
COMMAND_SECONDS = 120.0
"""Commands wait for the coordinator's engine, which may be writing a model."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Private key and certificate of this end; read anew at each (re)connection."""

    key: Path
    certificate: Path
    passphrase: bytes | None = field(default=None, repr=False)
    """Where the key is encrypted. gRPC gets it decrypted, in memory."""


@dataclass(frozen=True, slots=True)
class Stubs:
    """All services of the work listener over one channel."""

    channel: Any
    work: Any
    blobs: Any
    operations: Any
    log: Any


class Session:
    """One member's connection to the work listener. The channel is made at the first call."""

    def __init__(
        self,
        address: str,
        genesis: Genesis,
        tls: TlsFiles,
        *,
        streams: Streams = "auto",
        pacing: Pacing | None = None,
        bulk: BulkPort = "auto",
    ) -> None:
        """
        Args:
            streams: how many carry a large blob at most.
            pacing: how fast all transfers together may be.
            bulk: as common.wire.bulk.way.BulkWay takes its port.
        """
        self.address = address
        self._genesis, self._tls = genesis, tls
        self._pacing = pacing or Pacing()
        way = BulkWay(address, genesis, pair=self._pair, ask=self._ask_for_bulk, port=bulk)
        self._ways = Ways(address, Link(_Blobs(self), self._channel, self.head), way, streams)
        self._lock = threading.Lock()
        self._stubs: Stubs | None = None
        self._retired: Stubs | None = None
        self._closed = False

    # --- control plane ------------------------------------------------------------------------------------------------

    def follow(
        self,
        *,
        from_index: int,
        wait_seconds: float,
        cosignature: Cosignature | None = None,
        cosigned_size: int = 0,
        seen_size: int = 0,
        lineage: int = 0,
    ) -> LedgerEntries:
        """Ledger entries from `from_index` on; waits up to `wait_seconds` (30 at most) for the first.

        Args:
            cosignature: a witness's, on a checkpoint that came before.
            cosigned_size: entries that a majority of the witnesses cosigned, as is known here.
            seen_size: entries of the largest tree that the log is known to have signed for.
            lineage: entries up to the statement that began the newest lineage here; 0: none.
        """
        request = convert.follow_request_to_wire(
            from_index,
            wait_seconds=wait_seconds,
            cosignature=cosignature,
            cosigned_size=cosigned_size,
            seen_size=seen_size,
            lineage=lineage,
        )
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

    def estimate(self, estimate: Estimate) -> None:
        """Answers an inquiry that came with `follow`."""
        request = convert.estimate_to_wire(estimate)
        self.call(lambda stubs: stubs.work.Estimate(request, timeout=CALL_SECONDS))

    def head(self, old_size: int = 0) -> LogHead:
        """The newest checkpoint, and the proof that the tree of `old_size` entries is its beginning."""
        request = log_pb2.HeadRequest(old_size=old_size)
        return head_from_wire(self.call(lambda stubs: stubs.log.Head(request, timeout=CALL_SECONDS)))

    def receipt(self, index: int) -> bytes:
        """The proof that entry `index` is in the newest checkpoint's tree, as a C2SP tlog-proof."""
        request = log_pb2.ProveRequest(index=index)
        return receipt_from_wire(self.call(lambda stubs: stubs.log.Prove(request, timeout=CALL_SECONDS)))

    def proposals(self) -> tuple[Proposal, ...]:
        """Drafts of statements that await approvals, oldest first."""
        reply = self.call(lambda stubs: stubs.work.Proposals(work_pb2.ProposalsRequest(), timeout=COMMAND_SECONDS))
        return proposals_from_wire(reply)

    def approve(self, payload_sha256: str, signature: bytes) -> Approved:
        """Put this institution's signature under a draft."""
        request = approve_request_to_wire(payload_sha256, signature)
        return approved_from_wire(self.call(lambda stubs: stubs.work.Approve(request, timeout=COMMAND_SECONDS)))

    def present(self, presented: Presented) -> Wanted:
        """Show a coordinator that may hold less of the ledger what is held here; what it wants next."""
        request = present_to_wire(presented)
        return wanted_from_wire(self.call(lambda stubs: stubs.work.Present(request, timeout=COMMAND_SECONDS)))

    # --- data plane ---------------------------------------------------------------------------------------------------

    def upload(self, blob: WholeBlob, purpose: Purpose, options: TransferOptions | None = None) -> bool:
        """As common.wire.transfer.upload, over as many connections as the way is worth."""
        with self._ways.opened(blob.ref, self._pacing.up, options) as (lanes, paced):
            return upload(lanes, blob, purpose, paced)

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        """As common.wire.transfer.download, over as many connections as the way is worth."""
        with self._ways.opened(ref, self._pacing.down, options) as (lanes, paced):
            return download(lanes, ref, store, owner, paced)

    def round_trip_seconds(self) -> float:
        """As common.wire.ways.Ways.round_trip_seconds."""
        return self._ways.round_trip_seconds()

    def _ask_for_bulk(self) -> int:
        request = blobs_pb2.FindBulkRequest()
        return convert.port_from_wire(self.call(lambda stubs: stubs.blobs.FindBulk(request, timeout=CALL_SECONDS)))

    def expect_readable(self, ref: BlobRef) -> None:
        """That a download of this blob can begin; only its leaf list is fetched.

        Raises:
            NotAuthorised, MissingBlob: no statement gives it to this member; it is not there any more.
            BadBlobReference: what is there is not what the reference names.
        """
        self.leaves(ref)

    def leaves(self, ref: BlobRef) -> bytes:
        """A blob's leaf list, which gives its root.

        Raises:
            NotAuthorised, MissingBlob, BadBlobReference: as `expect_readable`.
        """
        request = convert.leaves_request_to_wire(ref)
        message = self.call(lambda stubs: stubs.blobs.Leaves(request, timeout=CALL_SECONDS))
        return convert.leaves_from_wire(message, ref)

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
            NotInitialised, StorageFailure, WrongPassphrase: the key or the certificate cannot be read.
        """
        with self._lock:
            if self._closed:
                raise CoordinatorUnreachable("The session was closed on this side.")
            if self._stubs is None:
                self._stubs = self._connect()
            return self._stubs

    def renew(self) -> None:
        """The next call makes a new channel from the files as they are then; calls in progress go on over the one before."""
        with self._lock:
            if self._stubs is None:
                return
            ended, self._retired, self._stubs = self._retired, self._stubs, None
        if ended is not None:
            ended.channel.close()

    def close(self) -> None:
        """Ends calls in progress; later ones fail."""
        with self._lock:
            self._closed = True
            channels = [stubs.channel for stubs in (self._stubs, self._retired) if stubs is not None]
            self._stubs = self._retired = None
        for channel in channels:
            channel.close()
        self._ways.close()

    def _channel(self, window_bytes: int) -> Any:
        """A connection of its own, for one stream.

        Raises:
            CoordinatorUnreachable: the session was closed.
        """
        with self._lock:
            if self._closed:
                raise CoordinatorUnreachable("The session was closed on this side.")
        return self._work_channel(window_bytes, own_connection=True)

    def _work_channel(self, window_bytes: int, *, own_connection: bool) -> Any:
        genesis = self._genesis
        key_pem, cert_pem = self._pair()
        return work_channel(
            self.address,
            consortium=genesis.consortium,
            ca_pem=genesis.ca_certificate.encode(),
            key_pem=key_pem,
            cert_pem=cert_pem,
            window_bytes=window_bytes,
            own_connection=own_connection,
        )

    def _pair(self) -> tuple[bytes, bytes]:
        return TlsPair(self._tls.key, self._tls.certificate, self._tls.passphrase).read()

    def _connect(self) -> Stubs:
        channel = self._work_channel(WINDOW_BYTES, own_connection=False)
        return Stubs(
            channel=channel,
            work=work_pb2_grpc.WorkStub(channel),
            blobs=blobs_stub(channel),
            operations=operations_pb2_grpc.OperationsStub(channel),
            log=log_pb2_grpc.LogStub(channel),
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

    The way there is looked at first: that tells in seconds what gRPC finds out in twenty and cannot say.

    Raises:
        LLMasOSError: what the coordinator raised, or why it is not reached (common.wire.reach).
    """
    fault = fault_on_the_way(address, Expected(consortium, ca_pem))
    if fault is not None:
        raise fault
    message = convert.enrolment_request_to_wire(request)
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = enrolment_pb2_grpc.EnrolmentStub(channel).Enrol(message, timeout=COMMAND_SECONDS)
    return convert.enrolment_from_wire(reply)


def renew_certificate(address: str, *, consortium: str, ca_pem: bytes, request: RenewalRequest) -> Enrolment:
    """A new certificate for a member, asked for under its signing key; the same request again gives the same answer.

    Raises:
        LLMasOSError: as `enrol`.
    """
    message = convert.renewal_request_to_wire(request)
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = enrolment_pb2_grpc.EnrolmentStub(channel).Renew(message, timeout=COMMAND_SECONDS)
    return convert.renewal_from_wire(reply)


def diagnose(address: str, *, consortium: str, ca_pem: bytes, certificate_pem: bytes) -> Diagnosis:
    """What the coordinator says of a certificate that its work listener refuses.

    Raises:
        LLMasOSError: as `enrol`.
    """
    message = enrolment_pb2.DiagnoseRequest(certificate_pem=certificate_pem.decode("ascii", "replace"))
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = enrolment_pb2_grpc.EnrolmentStub(channel).Diagnose(message, timeout=CALL_SECONDS)
    return convert.diagnosis_from_wire(reply)


def log_head(address: str, *, consortium: str, ca_pem: bytes, old_size: int = 0) -> LogHead:
    """The newest checkpoint from the enrolment listener: for a witness that is no member.

    Raises:
        LLMasOSError: as `enrol`.
    """
    request = log_pb2.HeadRequest(old_size=old_size)
    with enrolment_channel(address, consortium=consortium, ca_pem=ca_pem) as channel, rpc_errors(address):
        reply = log_pb2_grpc.LogStub(channel).Head(request, timeout=CALL_SECONDS)
    return head_from_wire(reply)
