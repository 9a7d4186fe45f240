"""Between wire messages and checked values: with convert_log.py, where `common` reads and makes generated messages.

`*_to_wire` trusts its argument; `*_from_wire` treats the message as hostile: presence, range and size are checked, and the
error names the field. What only the coordinator reads or writes stands in coordinator/api/convert.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from common.blobs.reference import MAX_BLOB_BYTES, BlobRef, DigestName
from common.errors import BadBlobReference, MalformedMessage
from common.ledger.notes import MAX_NOTE_BYTES
from common.statements.envelope import MAX_ENVELOPE_BYTES
from common.wire import check
from common.wire.channel import LEAST_PIECE_BYTES, MESSAGE_BYTES, MOST_PIECE_BYTES
from common.wire.messages import (
    ActivityReport,
    Cosignature,
    Diagnosis,
    Enrolment,
    EnrolmentRequest,
    Estimate,
    Inquiry,
    LedgerEntries,
    MetricsRecord,
    Piece,
    Purpose,
    RenewalRequest,
    TransferProgress,
)
from common.wire.v1 import blobs_pb2, common_pb2, enrolment_pb2, operations_pb2, work_pb2

MAX_PIECE_BYTES = MOST_PIECE_BYTES
MAX_METRICS_BYTES = 64 * 1024
MAX_FOLLOW_MILLISECONDS = 30_000
MAX_PLAN_BYTES = 1024 * 1024
MAX_INQUIRIES = 4
INQUIRY_ID_BYTES = 16
MAX_FOLLOW_BYTES = 2 * 1024 * 1024
MAX_COSIGNED = 64
COSIGNATURE_BYTES = 72
DIGEST_BYTES = 32
ALGORITHMS: tuple[str, ...] = get_args(DigestName)
_MAX_FOLLOW_ENTRIES = 65_536

# --- blobs ------------------------------------------------------------------------------------------------------------


def blob_ref_to_wire(ref: BlobRef) -> common_pb2.BlobRef:
    return common_pb2.BlobRef(algorithm=ref.algorithm, size=ref.size, root=bytes.fromhex(ref.root))


def blob_ref_from_wire(message: common_pb2.BlobRef) -> BlobRef:
    """
    Raises:
        MalformedMessage: unknown algorithm, size above MAX_BLOB_BYTES, root not of 32 bytes.
    """
    algorithm: Any = check.one_of(message, "algorithm", ALGORITHMS)
    size = check.integer(message, "size", most=MAX_BLOB_BYTES)
    return BlobRef(algorithm=algorithm, size=size, root=check.exactly(message, "root", DIGEST_BYTES).hex())


def leaves_to_wire(leaves: bytes) -> common_pb2.LeafList:
    return common_pb2.LeafList(hashes=leaves)


def leaves_from_wire(message: common_pb2.LeafList, ref: BlobRef) -> bytes:
    """The concatenated leaf hashes. Whether they give the root, the store checks.

    Raises:
        BadBlobReference: not as many as `ref` has chunks.
    """
    if len(message.hashes) != DIGEST_BYTES * ref.chunks:
        raise BadBlobReference(
            f"LeafList.hashes: expected {DIGEST_BYTES * ref.chunks:,} bytes for {ref}, got {len(message.hashes):,}."
        )
    return bytes(message.hashes)


def piece_to_wire(piece: Piece) -> common_pb2.ChunkPiece:
    return common_pb2.ChunkPiece(chunk=piece.chunk, offset=piece.offset, data=bytes(piece.data))


def piece_from_wire(message: common_pb2.ChunkPiece | Piece) -> Piece:
    """
    Raises:
        MalformedMessage: no bytes in it, or more than MAX_PIECE_BYTES.
    """
    if isinstance(message, Piece):
        if not 1 <= len(message.data) <= MAX_PIECE_BYTES:
            raise MalformedMessage(
                f"ChunkPiece.data: expected 1 to {MAX_PIECE_BYTES:,} bytes, got {len(message.data):,}."
            )
        return message
    data = check.at_most(message, "data", MAX_PIECE_BYTES, least=1)
    return Piece(chunk=message.chunk, offset=message.offset, data=data)


def purpose_to_wire(purpose: Purpose) -> blobs_pb2.Purpose:
    if purpose.round_opened is not None:
        return blobs_pb2.Purpose(round_opened=bytes.fromhex(purpose.round_opened))
    return blobs_pb2.Purpose(recovery=True) if purpose.recovery else blobs_pb2.Purpose(plan=purpose.plan)


def purpose_from_wire(message: blobs_pb2.Purpose) -> Purpose:
    """
    Raises:
        MalformedMessage: neither is set, the digest is not of 32 bytes, the plan is not a name.
    """
    match message.WhichOneof("purpose"):
        case "round_opened":
            return Purpose(round_opened=check.exactly(message, "round_opened", DIGEST_BYTES).hex())
        case "plan":
            return Purpose(plan=check.name(message, "plan"))
        case "recovery" if message.recovery:
            return Purpose(recovery=True)
        case _:
            raise MalformedMessage("Purpose.purpose is absent: expected round_opened, plan or recovery.")


def begin_request_to_wire(ref: BlobRef, leaves: bytes, purpose: Purpose) -> blobs_pb2.BeginRequest:
    return blobs_pb2.BeginRequest(
        ref=blob_ref_to_wire(ref), leaves=leaves_to_wire(leaves), purpose=purpose_to_wire(purpose)
    )


def missing_to_wire(ranges: Sequence[tuple[int, int]], piece_bytes: int = MESSAGE_BYTES) -> blobs_pb2.BeginResponse:
    return blobs_pb2.BeginResponse(
        missing=[blobs_pb2.ChunkRange(first=first, count=count) for first, count in ranges], piece_bytes=piece_bytes
    )


def missing_from_wire(message: blobs_pb2.BeginResponse, ref: BlobRef) -> list[tuple[int, int]]:
    """(first, count) of each run of missing chunks: ascending, apart, inside the blob."""
    ranges, end = [], 0
    for missing in check.repeated(message, "missing", ref.chunks):
        if missing.count < 1 or missing.first < end or missing.first + missing.count > ref.chunks:
            raise MalformedMessage(
                f"BeginResponse.missing: expected ascending ranges inside {ref.chunks:,} chunks, "
                f"got {missing.count:,} from {missing.first:,}."
            )
        end = missing.first + missing.count
        ranges.append((missing.first, missing.count))
    return ranges


def piece_bytes_from_wire(asked: int) -> int:
    """What the other side asks pieces to be, inside what both ends bear; 1 MiB where it asks nothing."""
    return min(max(asked, LEAST_PIECE_BYTES), MOST_PIECE_BYTES) if asked else MESSAGE_BYTES


def port_from_wire(message: blobs_pb2.FindBulkResponse) -> int:
    """Of the bulk listener; 0: there is none."""
    return check.integer(message, "port", most=65535)


def put_header_to_wire(ref: BlobRef, purpose: Purpose) -> blobs_pb2.PutRequest:
    return blobs_pb2.PutRequest(ref=blob_ref_to_wire(ref), purpose=purpose_to_wire(purpose))


def put_piece_to_wire(piece: Piece) -> blobs_pb2.PutRequest:
    message = blobs_pb2.PutRequest()
    into = message.piece  # filled in place: a message given to another's constructor is copied
    into.chunk, into.offset, into.data = piece.chunk, piece.offset, bytes(piece.data)
    return message


def get_request_to_wire(
    ref: BlobRef, first_chunk: int, chunks: int, *, verify: bool = False, most_piece_bytes: int = MESSAGE_BYTES
) -> blobs_pb2.GetRequest:
    return blobs_pb2.GetRequest(
        ref=blob_ref_to_wire(ref),
        first_chunk=first_chunk,
        chunks=chunks,
        verify=verify,
        most_piece_bytes=most_piece_bytes,
    )


def leaves_request_to_wire(ref: BlobRef) -> blobs_pb2.LeavesRequest:
    return blobs_pb2.LeavesRequest(ref=blob_ref_to_wire(ref))


# --- ledger and statements --------------------------------------------------------------------------------------------


def envelope_from_wire(message: common_pb2.Envelope) -> bytes:
    """
    Raises:
        MalformedMessage: empty, or above MAX_ENVELOPE_BYTES.
    """
    return check.at_most(message, "json", MAX_ENVELOPE_BYTES, least=1)


def follow_request_to_wire(
    from_index: int,
    *,
    wait_seconds: float,
    cosignature: Cosignature | None = None,
    cosigned_size: int = 0,
    seen_size: int = 0,
    lineage: int = 0,
) -> work_pb2.FollowRequest:
    request = work_pb2.FollowRequest(
        from_index=from_index,
        wait_milliseconds=min(MAX_FOLLOW_MILLISECONDS, max(0, round(wait_seconds * 1000))),
        cosigned_size=cosigned_size,
        seen_size=seen_size,
        lineage=lineage,
    )
    if cosignature is not None:
        request.cosignature.size, request.cosignature.signature = cosignature.size, cosignature.signature
    return request


def cosignature_from_wire(message: work_pb2.FollowRequest) -> Cosignature | None:
    """
    Raises:
        MalformedMessage: there is one, and it is not of COSIGNATURE_BYTES.
    """
    if not message.HasField("cosignature"):
        return None
    size = check.integer(message.cosignature, "size")
    return Cosignature(size, check.exactly(message.cosignature, "signature", COSIGNATURE_BYTES))


def entries_to_wire(entries: LedgerEntries) -> work_pb2.FollowResponse:
    return work_pb2.FollowResponse(
        entries=[
            common_pb2.LedgerEntry(index=index, envelope=common_pb2.Envelope(json=envelope))
            for index, envelope in enumerate(entries.envelopes, start=entries.first_index)
        ],
        ledger_size=entries.ledger_size,
        inquiries=[work_pb2.Inquiry(id=each.id, plan_json=each.plan_json) for each in entries.inquiries],
        checkpoint=entries.checkpoint,
        cosigned=entries.cosigned,
        open_proposals=entries.open_proposals,
    )


def entries_from_wire(message: work_pb2.FollowResponse, *, from_index: int) -> LedgerEntries:
    """
    Raises:
        MalformedMessage: the entries are not consecutive from `from_index`, or the ledger is shorter than they say.
    """
    envelopes = tuple(_consecutive(message, from_index))
    size = check.integer(message, "ledger_size")
    if envelopes and size < from_index + len(envelopes):
        raise MalformedMessage(
            f"FollowResponse.ledger_size: expected at least {from_index + len(envelopes):,}, got {size:,}."
        )
    cosigned = tuple(bytes(note) for note in check.repeated(message, "cosigned", MAX_COSIGNED))
    if sum(map(len, cosigned)) > MAX_NOTE_BYTES:
        raise MalformedMessage(f"FollowResponse.cosigned: expected at most {MAX_NOTE_BYTES:,} bytes together.")
    return LedgerEntries(
        first_index=from_index,
        envelopes=envelopes,
        ledger_size=size,
        inquiries=tuple(_inquiry_from_wire(each) for each in check.repeated(message, "inquiries", MAX_INQUIRIES)),
        checkpoint=check.at_most(message, "checkpoint", MAX_NOTE_BYTES),
        cosigned=cosigned,
        open_proposals=check.integer(message, "open_proposals"),
    )


def _inquiry_from_wire(message: work_pb2.Inquiry) -> Inquiry:
    return Inquiry(
        id=check.exactly(message, "id", INQUIRY_ID_BYTES),
        plan_json=check.at_most(message, "plan_json", MAX_PLAN_BYTES, least=1),
    )


def estimate_to_wire(estimate: Estimate) -> work_pb2.EstimateRequest:
    return work_pb2.EstimateRequest(
        id=estimate.id,
        verdict=estimate.verdict,
        codes=estimate.codes,
        seconds_per_round=estimate.seconds_per_round,
        availability=estimate.availability,
    )


def _consecutive(message: work_pb2.FollowResponse, from_index: int) -> Iterator[bytes]:
    for index, entry in enumerate(check.repeated(message, "entries", _MAX_FOLLOW_ENTRIES), start=from_index):
        if entry.index != index:
            raise MalformedMessage(f"LedgerEntry.index: expected {index:,}, got {entry.index:,}.")
        yield envelope_from_wire(check.present(entry, "envelope"))


def submit_request_to_wire(envelope: bytes, metrics: MetricsRecord | None) -> work_pb2.SubmitRequest:
    request = work_pb2.SubmitRequest(envelope=common_pb2.Envelope(json=envelope))
    if metrics is not None:
        request.metrics, request.metrics_salt = metrics.content, metrics.salt
    return request


def report_to_wire(report: ActivityReport) -> work_pb2.ReportRequest:
    return work_pb2.ReportRequest(
        run=report.run,
        round=report.round,
        activity=report.activity,
        steps_done=report.steps_done,
        steps_total=report.steps_total,
        tokens_done=report.tokens_done,
        bytes_down=report.bytes_down,
        bytes_up=report.bytes_up,
        loss_fixed=report.loss_fixed,
        available_at=report.available_at,
        transfer=transfer_to_wire(report.transfer),
    )


def transfer_to_wire(transfer: TransferProgress | None) -> common_pb2.Transfer | None:
    if transfer is None:
        return None
    return common_pb2.Transfer(
        bytes_done=transfer.bytes_done,
        bytes_total=transfer.bytes_total,
        bytes_per_second=transfer.bytes_per_second,
    )


def transfer_from_wire(message: work_pb2.ReportRequest | operations_pb2.ParticipantView) -> TransferProgress | None:
    """The field `transfer` of a message, if it is there.

    Raises:
        MalformedMessage: more is done than there is, or a number is out of range.
    """
    if not message.HasField("transfer"):
        return None
    found = message.transfer
    total = check.integer(found, "bytes_total", most=MAX_BLOB_BYTES)
    return TransferProgress(
        check.integer(found, "bytes_done", most=total), total, check.integer(found, "bytes_per_second")
    )


# --- enrolment --------------------------------------------------------------------------------------------------------


def enrolment_request_to_wire(request: EnrolmentRequest) -> enrolment_pb2.EnrolRequest:
    return enrolment_pb2.EnrolRequest(
        invitation_id=request.invitation_id,
        secret=request.secret,
        csr_der=request.csr_der,
        signing_key=request.signing_key,
        proof=request.proof,
        encryption_key=request.encryption_key or b"",
    )


def enrolment_from_wire(message: enrolment_pb2.EnrolResponse) -> Enrolment:
    return Enrolment(
        certificate_pem=check.text(message, "certificate_pem", limit=16_384, least=1),
        roster_index=check.integer(message, "roster_index"),
    )


def renewal_request_to_wire(request: RenewalRequest) -> enrolment_pb2.RenewRequest:
    return enrolment_pb2.RenewRequest(
        institution=request.institution,
        replaces_serial=request.replaces_serial,
        csr_der=request.csr_der,
        proof=request.proof,
        new_signing_key=request.new_signing_key or b"",
        new_proof=request.new_proof or b"",
    )


def renewal_from_wire(message: enrolment_pb2.RenewResponse) -> Enrolment:
    return Enrolment(
        certificate_pem=check.text(message, "certificate_pem", limit=16_384, least=1),
        roster_index=check.integer(message, "roster_index"),
    )


def diagnosis_to_wire(diagnosis: Diagnosis) -> enrolment_pb2.DiagnoseResponse:
    return enrolment_pb2.DiagnoseResponse(
        code=diagnosis.code,
        message=diagnosis.message,
        fix=diagnosis.fix,
        coordinator_time=diagnosis.coordinator_time,
    )


def diagnosis_from_wire(message: enrolment_pb2.DiagnoseResponse) -> Diagnosis:
    return Diagnosis(
        code=check.code(message, "code"),
        message=check.text(message, "message", limit=4000),
        fix=check.text(message, "fix", limit=4000),
        coordinator_time=check.text(message, "coordinator_time", limit=40),
    )
