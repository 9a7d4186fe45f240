"""Between wire messages and checked values: the log's heads and proofs, and drafts that await approvals.

As in convert.py, `*_from_wire` treats the message as hostile. What a note or a payload says is verified by those who read it.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import MalformedMessage
from common.ledger.notes import MAX_NOTE_BYTES
from common.ledger.receipts import MAX_PROOF_HASHES
from common.wire import check
from common.wire.convert import DIGEST_BYTES, MAX_PLAN_BYTES
from common.wire.messages import Approved, LogHead, Proposal
from common.wire.v1 import log_pb2, work_pb2

MAX_RECEIPT_BYTES = MAX_NOTE_BYTES + 8192
MAX_PROPOSALS = 64
MAX_APPROVERS = 1000
SIGNATURE_BYTES = 64

# --- heads and proofs -------------------------------------------------------------------------------------------------


def head_to_wire(head: LogHead) -> log_pb2.HeadResponse:
    return log_pb2.HeadResponse(checkpoint=head.checkpoint, consistency=head.consistency)


def head_from_wire(message: log_pb2.HeadResponse) -> LogHead:
    """
    Raises:
        MalformedMessage: no note, or a proof with too many hashes or other lengths.
    """
    hashes = tuple(bytes(each) for each in check.repeated(message, "consistency", MAX_PROOF_HASHES))
    if any(len(each) != DIGEST_BYTES for each in hashes):
        raise MalformedMessage(f"HeadResponse.consistency: expected hashes of {DIGEST_BYTES} bytes.")
    return LogHead(check.at_most(message, "checkpoint", MAX_NOTE_BYTES, least=1), hashes)


def receipt_from_wire(message: log_pb2.ProveResponse) -> bytes:
    """
    Raises:
        MalformedMessage: none, or too long.
    """
    return check.at_most(message, "receipt", MAX_RECEIPT_BYTES, least=1)


# --- proposals --------------------------------------------------------------------------------------------------------


def proposals_to_wire(proposals: Sequence[Proposal]) -> work_pb2.ProposalsResponse:
    return work_pb2.ProposalsResponse(
        proposals=[
            work_pb2.Proposal(
                payload_json=each.payload,
                proposed_at=each.proposed_at,
                approvals_needed=each.approvals_needed,
                approved_by=each.approved_by,
            )
            for each in proposals
        ]
    )


def proposals_from_wire(message: work_pb2.ProposalsResponse) -> tuple[Proposal, ...]:
    """
    Raises:
        MalformedMessage: too many, too long, or a time or name that is none.
    """
    return tuple(_proposal(each) for each in check.repeated(message, "proposals", MAX_PROPOSALS))


def _proposal(message: work_pb2.Proposal) -> Proposal:
    names = tuple(str(name)[:80] for name in check.repeated(message, "approved_by", MAX_APPROVERS))
    return Proposal(
        payload=check.at_most(message, "payload_json", MAX_PLAN_BYTES, least=1),
        proposed_at=check.text(message, "proposed_at", limit=40),
        approvals_needed=check.integer(message, "approvals_needed"),
        approved_by=names,
    )


def approve_request_to_wire(payload_sha256: str, signature: bytes) -> work_pb2.ApproveRequest:
    return work_pb2.ApproveRequest(payload_sha256=bytes.fromhex(payload_sha256), signature=signature)


def approve_from_wire(message: work_pb2.ApproveRequest) -> tuple[str, bytes]:
    """The payload's SHA-256, hexadecimal, and the signature."""
    digest = check.exactly(message, "payload_sha256", DIGEST_BYTES)
    return digest.hex(), check.exactly(message, "signature", SIGNATURE_BYTES)


def approved_to_wire(approved: Approved) -> work_pb2.ApproveResponse:
    return work_pb2.ApproveResponse(
        index=approved.index,
        approvals_needed=approved.approvals_needed,
        approvals_given=approved.approvals_given,
    )


def approved_from_wire(message: work_pb2.ApproveResponse) -> Approved:
    return Approved(
        index=check.integer(message, "index") if message.HasField("index") else None,
        approvals_needed=check.integer(message, "approvals_needed"),
        approvals_given=check.integer(message, "approvals_given"),
    )
