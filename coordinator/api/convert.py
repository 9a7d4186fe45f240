"""Between wire messages and the coordinator's ports: what common/wire/convert.py leaves to the coordinator.

Requests arrive here hostile and leave checked: presence, range and size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from common.blobs.reference import BlobRef
from common.clock import parse_rfc3339, rfc3339
from common.errors import MalformedMessage
from common.identity.certificates import MAX_CERTIFICATE_BYTES
from common.statements.kinds import Role
from common.wire import check
from common.wire.channel import MESSAGE_BYTES
from common.wire.convert import (
    DIGEST_BYTES,
    INQUIRY_ID_BYTES,
    MAX_FOLLOW_MILLISECONDS,
    MAX_METRICS_BYTES,
    MAX_PLAN_BYTES,
    blob_ref_from_wire,
    cosignature_from_wire,
    envelope_from_wire,
    leaves_from_wire,
    piece_bytes_from_wire,
    piece_from_wire,
    purpose_from_wire,
    transfer_from_wire,
)
from common.wire.messages import ActivityName, Cosignature, Estimate, Piece, Verdict
from common.wire.v1 import blobs_pb2, enrolment_pb2, log_pb2, operations_pb2, work_pb2
from coordinator.ports import Activity, Enrolled, EnrolmentOffer, Metrics, RenewalOffer, Steering, UploadPurpose

ROLES: tuple[str, ...] = get_args(Role)
ACTIVITIES: tuple[str, ...] = get_args(ActivityName)
MAX_INVITATION_HOURS = 24 * 366
VERDICTS: tuple[str, ...] = get_args(Verdict)
CODE_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,62}")
MAX_CODES = 32
MAX_ROUND_SECONDS = 10_000_000
MAX_INQUIRE_MILLISECONDS = 60_000
_MAX_LOSS = 2**53

# --- requests of institutions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """A blob that a caller sends, and what for."""

    ref: BlobRef
    purpose: UploadPurpose


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """Chunks `first` to `end - 1` of a blob: at least one, all inside it."""

    ref: BlobRef
    first: int
    end: int
    verify: bool = False
    """Whether each chunk is checked before it is sent."""
    most_piece_bytes: int = MESSAGE_BYTES


def upload_request_from_wire(message: blobs_pb2.BeginRequest | blobs_pb2.PutRequest) -> UploadRequest:
    """What Begin, and the first message of Put, are about."""
    purpose = purpose_from_wire(check.present(message, "purpose"))
    return UploadRequest(
        ref=blob_ref_from_wire(check.present(message, "ref")),
        purpose=UploadPurpose(purpose.round_opened, purpose.plan, purpose.recovery),
    )


def begin_from_wire(message: blobs_pb2.BeginRequest) -> tuple[UploadRequest, bytes]:
    """What is to come, and its leaf list."""
    request = upload_request_from_wire(message)
    return request, leaves_from_wire(check.present(message, "leaves"), request.ref)


def put_from_wire(messages: Iterator[blobs_pb2.PutRequest | Piece]) -> tuple[UploadRequest, Iterator[Piece]]:
    """The stream's first message, and the pieces that follow."""
    header = next(messages, None)
    if header is None:
        raise MalformedMessage("PutRequest.ref is absent: the stream ended before its first message.")
    if isinstance(header, Piece):
        raise MalformedMessage("PutRequest.ref is absent from the stream's first message.")
    return upload_request_from_wire(header), map(_piece_of, messages)


def _piece_of(message: blobs_pb2.PutRequest | Piece) -> Piece:
    return piece_from_wire(message if isinstance(message, Piece) else check.present(message, "piece"))


def leaves_request_from_wire(message: blobs_pb2.LeavesRequest) -> BlobRef:
    return blob_ref_from_wire(check.present(message, "ref"))


def get_from_wire(message: blobs_pb2.GetRequest) -> ChunkRange:
    ref = blob_ref_from_wire(check.present(message, "ref"))
    end = message.first_chunk + message.chunks
    if not message.first_chunk < end <= ref.chunks:
        raise MalformedMessage(
            f"GetRequest.chunks: expected at least one chunk and all of them inside {ref.chunks:,}, "
            f"got {message.chunks:,} from {message.first_chunk:,}."
        )
    return ChunkRange(ref, message.first_chunk, end, message.verify, piece_bytes_from_wire(message.most_piece_bytes))


@dataclass(frozen=True, slots=True)
class FollowAsked:
    """From which index, how many seconds to wait at most, and what the caller says of witnesses."""

    from_index: int
    wait_seconds: float
    cosignature: Cosignature | None = None
    cosigned_size: int = 0
    seen_size: int = 0
    lineage: int = 0

    @property
    def known(self) -> int:
        """Entries that the caller knows this log to have signed for, or holds."""
        return max(self.from_index, self.seen_size)


def follow_from_wire(message: work_pb2.FollowRequest) -> FollowAsked:
    return FollowAsked(
        from_index=check.integer(message, "from_index"),
        wait_seconds=check.integer(message, "wait_milliseconds", most=MAX_FOLLOW_MILLISECONDS) / 1000,
        cosignature=cosignature_from_wire(message),
        cosigned_size=check.integer(message, "cosigned_size"),
        seen_size=check.integer(message, "seen_size"),
        lineage=check.integer(message, "lineage"),
    )


def head_request_from_wire(message: log_pb2.HeadRequest) -> int:
    """Entries in the tree that the caller knows."""
    return check.integer(message, "old_size")


def prove_from_wire(message: log_pb2.ProveRequest) -> int:
    """The entry's index."""
    return check.integer(message, "index")


def submit_from_wire(message: work_pb2.SubmitRequest) -> tuple[bytes, Metrics | None]:
    """A statement's envelope, and what travels beside it."""
    return envelope_from_wire(check.present(message, "envelope")), metrics_from_wire(message)


def metrics_from_wire(message: work_pb2.SubmitRequest) -> Metrics | None:
    """A contribution's metrics with their salt, or None; one without the other is malformed."""
    if not message.metrics and not message.metrics_salt:
        return None
    return Metrics(
        content=check.at_most(message, "metrics", MAX_METRICS_BYTES, least=1),
        salt=check.exactly(message, "metrics_salt", DIGEST_BYTES),
    )


def activity_from_wire(message: work_pb2.ReportRequest) -> Activity:
    name: Any = check.one_of(message, "activity", ACTIVITIES)
    loss = message.loss_fixed if message.HasField("loss_fixed") else None
    if loss is not None and abs(loss) >= _MAX_LOSS:
        raise MalformedMessage(f"ReportRequest.loss_fixed: expected below 2^53, got {loss:,}.")
    return Activity(
        run=check.name(message, "run"),
        round=check.integer(message, "round"),
        activity=name,
        steps_done=check.integer(message, "steps_done"),
        steps_total=check.integer(message, "steps_total"),
        tokens_done=check.integer(message, "tokens_done"),
        bytes_down=check.integer(message, "bytes_down"),
        bytes_up=check.integer(message, "bytes_up"),
        loss_fixed=loss,
        available_at=_time(message, "available_at"),
        transfer=transfer_from_wire(message),
    )


def _time(message: Any, field: str) -> str:
    """RFC 3339 UTC, or empty."""
    text = check.text(message, field, limit=40)
    try:
        return rfc3339(parse_rfc3339(text)) if text else ""
    except ValueError as err:
        raise MalformedMessage(
            f"{message.DESCRIPTOR.name}.{field}: expected 2026-11-21T22:12:00.000Z, got {text!r}."
        ) from err


def estimate_from_wire(message: work_pb2.EstimateRequest) -> Estimate:
    verdict: Any = check.one_of(message, "verdict", VERDICTS)
    seconds = message.seconds_per_round
    if not 0 <= seconds < MAX_ROUND_SECONDS:
        raise MalformedMessage(
            f"EstimateRequest.seconds_per_round: expected 0 to {MAX_ROUND_SECONDS:,}, got {seconds}."
        )
    codes = tuple(check.repeated(message, "codes", MAX_CODES))
    windows = tuple(check.repeated(message, "availability", MAX_CODES))
    if not all(CODE_PATTERN.fullmatch(code) for code in codes):
        raise MalformedMessage("EstimateRequest.codes: expected kebab-case codes.")
    if not all(len(window) <= 100 and window.isascii() and window.isprintable() for window in windows):
        raise MalformedMessage(
            "EstimateRequest.availability: expected windows of at most 100 printable ASCII characters."
        )
    identifier = check.exactly(message, "id", INQUIRY_ID_BYTES)
    return Estimate(identifier, verdict, codes, seconds, windows)


def renewal_offer_from_wire(message: enrolment_pb2.RenewRequest) -> RenewalOffer:
    return RenewalOffer(
        institution=check.name(message, "institution"),
        replaces_serial=check.text(message, "replaces_serial", limit=40, least=1),
        csr_der=check.at_most(message, "csr_der", 8192, least=1),
        proof=check.exactly(message, "proof", 64),
        new_signing_key=check.exactly(message, "new_signing_key", 32) if message.new_signing_key else None,
        new_proof=check.exactly(message, "new_proof", 64) if message.new_proof else None,
    )


def renewed_to_wire(enrolled: Enrolled) -> enrolment_pb2.RenewResponse:
    return enrolment_pb2.RenewResponse(certificate_pem=enrolled.certificate_pem, roster_index=enrolled.roster_index)


def enrolment_offer_from_wire(message: enrolment_pb2.EnrolRequest) -> EnrolmentOffer:
    encryption_key = check.exactly(message, "encryption_key", 32) if message.encryption_key else None
    return EnrolmentOffer(
        invitation_id=check.text(message, "invitation_id", limit=100, least=1),
        secret=check.exactly(message, "secret", 32),
        csr_der=check.at_most(message, "csr_der", 8192, least=1),
        signing_key=check.exactly(message, "signing_key", 32),
        proof=check.exactly(message, "proof", 64),
        encryption_key=encryption_key,
    )


def certificate_pem_from_wire(message: enrolment_pb2.DiagnoseRequest) -> bytes:
    return check.text(message, "certificate_pem", limit=MAX_CERTIFICATE_BYTES, least=1).encode()


def enrolled_to_wire(enrolled: Enrolled) -> enrolment_pb2.EnrolResponse:
    return enrolment_pb2.EnrolResponse(certificate_pem=enrolled.certificate_pem, roster_index=enrolled.roster_index)


# --- requests of operators --------------------------------------------------------------------------------------------


def invite_from_wire(message: operations_pb2.InviteRequest) -> tuple[str, int, tuple[Role, ...]]:
    """Name, hours until the invitation expires (0: as configured), and roles, of which there is at least one."""
    hours = check.integer(message, "expires_hours", most=MAX_INVITATION_HOURS)
    roles: Any = tuple(dict.fromkeys(check.repeated(message, "roles", len(ROLES))))
    if not roles or not set(roles) <= set(ROLES):
        raise MalformedMessage(f"InviteRequest.roles: expected some of {', '.join(ROLES)}, got {list(roles)!r:.200}.")
    return check.name(message, "institution"), hours, roles


def revoke_from_wire(message: operations_pb2.RevokeRequest) -> tuple[str, str]:
    """Name and reason code."""
    return check.name(message, "institution"), check.code(message, "reason")


def inquire_from_wire(message: operations_pb2.InquireRequest) -> tuple[bytes, float]:
    """The draft, and how many seconds to wait for answers."""
    wait = check.integer(message, "wait_milliseconds", most=MAX_INQUIRE_MILLISECONDS)
    return check.at_most(message, "plan_json", MAX_PLAN_BYTES, least=1), wait / 1000


def logs_from_wire(message: operations_pb2.RunLogsRequest) -> tuple[str, str, bool]:
    """A prefix of the run's id, an institution or nothing, and whether to go on with new lines."""
    institution = check.name(message, "institution") if message.institution else ""
    return check.text(message, "run", limit=63, least=1), institution, message.follow


def withdraw_from_wire(message: operations_pb2.WithdrawProposalRequest) -> str:
    """The draft's SHA-256, hexadecimal."""
    return check.exactly(message, "payload_sha256", DIGEST_BYTES).hex()


def delete_metrics_from_wire(message: operations_pb2.DeleteMetricsRequest) -> tuple[str, str]:
    """A prefix of the run's id, and an institution or nothing."""
    institution = check.name(message, "institution") if message.institution else ""
    return check.text(message, "run", limit=63, least=1), institution


def plan_json_from_wire(message: operations_pb2.StartRunRequest) -> bytes:
    return check.at_most(message, "plan_json", MAX_PLAN_BYTES, least=1)


def run_prefix_from_wire(message: operations_pb2.WatchRunRequest | operations_pb2.ControlRunRequest) -> str:
    return check.text(message, "run", limit=63, least=1)


def control_from_wire(message: operations_pb2.ControlRunRequest) -> tuple[str, str, str, Steering]:
    """A prefix of the run's id, the action, the reason as a code, and what belongs to the action: neither more nor less."""
    action = check.one_of(message, "action", tuple(_BELONGS_TO))
    numbers: dict[str, int] = {}
    for name in ("rounds", "deadline_seconds", "to_round"):
        if message.HasField(name):
            if name not in _BELONGS_TO[action]:
                raise MalformedMessage(f"ControlRunRequest.{name} is nothing that {action} asks for.")
            numbers[name] = check.integer(message, name)
    if _BELONGS_TO[action] and len(numbers) != 1:
        raise MalformedMessage(f"ControlRunRequest: {action} needs exactly one of {', '.join(_BELONGS_TO[action])}.")
    return run_prefix_from_wire(message), action, check.code(message, "reason"), Steering(**numbers)


_BELONGS_TO: dict[str, tuple[str, ...]] = {
    "pause": (),
    "resume": (),
    "extend": ("rounds", "deadline_seconds"),
    "rollback": ("to_round",),
    "abort": (),
}
