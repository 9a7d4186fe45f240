"""One message of every kind of wire version 1, each field set to something that is not its default."""

from __future__ import annotations

from typing import Any

from common.blobs.reference import BlobRef
from common.wire import convert, convert_log, convert_recovery
from common.wire.messages import (
    ActivityReport,
    Approved,
    Cosignature,
    Diagnosis,
    EnrolmentRequest,
    Estimate,
    Inquiry,
    LedgerEntries,
    LogHead,
    MetricsRecord,
    Piece,
    Presented,
    Proposal,
    Purpose,
    RenewalRequest,
    TransferProgress,
    Wanted,
)
from common.wire.v1 import blobs_pb2, common_pb2, enrolment_pb2, log_pb2, operations_pb2, work_pb2
from coordinator.api.convert import enrolled_to_wire, renewed_to_wire
from coordinator.api.convert_views import (
    estimate_view_to_wire,
    institution_to_wire,
    log_line_to_wire,
    run_view_to_wire,
    status_to_wire,
)
from coordinator.ports import (
    CoordinatorStatus,
    Enrolled,
    EstimateView,
    EvaluationView,
    InstitutionView,
    LogLine,
    ParticipantView,
    RefusalView,
    RoundView,
    RunView,
)

MODULES = (common_pb2, work_pb2, blobs_pb2, enrolment_pb2, operations_pb2, log_pb2)

LATER = "2026-11-22T06:00:00.000Z"
REF = BlobRef(algorithm="blake3", size=4 * 1024 * 1024 + 7, root="a1" * 32)
LEAVES = bytes(range(64))
ROUND = Purpose(round_opened="b2" * 32)
PIECE = Piece(chunk=1, offset=262_144, data=b"piece of a chunk")
INQUIRY = Inquiry(b"\x06" * 16, b'{"run":"tiny-0a1b2c"}')
ENTRIES = LedgerEntries(41, (b'{"payload":"YQ=="}',), 43, (INQUIRY,), b"note\n", (b"cosigned\n",), 2)
COSIGNATURE = Cosignature(43, b"\x0a" * 72)
HEAD = LogHead(b"note\n", (b"\x0b" * 32,))
PROPOSAL = Proposal(b'{"predicate":{}}', LATER, 2, ("north",))
APPROVED = Approved(44, 2, 2)
METRICS = MetricsRecord(b'{"tokens":1}', b"\x05" * 32)
PRESENTED = Presented(b"note\n", 41, (b'{"payload":"YQ=="}',), (b"\x0b" * 32,), (("c4" * 32, METRICS),), (REF,))
ESTIMATE = Estimate(b"\x06" * 16, "refuse", ("quorum-too-small",), 12.5, ("daily 18:00-07:00 UTC",))
RENEWAL = RenewalRequest("north", "1f", b"\x30\x82csr", b"\x07" * 64, b"\x08" * 32, b"\x09" * 64)
MOVING = TransferProgress(1 << 31, 1 << 33, 4_750_000)
REPORT = ActivityReport("tiny-0a1b2c", 3, "training", 5, 25, 25_600, 1 << 33, 1 << 32, -196_608, LATER, MOVING)
ENROLMENT = EnrolmentRequest("inv-1", b"\x01" * 32, b"\x30\x82csr", b"\x02" * 32, b"\x03" * 64, b"\x04" * 32)
DIAGNOSIS = Diagnosis("certificate-expired", "It has expired.", "Ask for a new one.", "2026-11-21T22:12:00.000Z")
VIEW = RunView(
    run="tiny-0a1b2c",
    plan_name="tiny",
    phase="ended",
    round=3,
    rounds_planned=3,
    participants=(
        ParticipantView("north", "accepted", 5, 25, 25_600, 7, 8, 196_608, ("too-busy",), 1234.5, LATER, MOVING),
    ),
    rounds=(
        RoundView(
            round=1,
            task="train",
            outcome="committed",
            cohort=("north", "south"),
            contributors=("north",),
            seconds=1.5,
            bytes_down=9,
            bytes_up=10,
            evaluations=(EvaluationView("pooled", 1 << 40, 4096, 3),),
            reason="all-contributed",
        ),
    ),
    refusals=(RefusalView(17, "south", 1, "wrong-parent", "signed-by", "c3" * 32),),
    end_reason="rounds",
    model=REF,
    deadline="2026-11-21T22:12:00.000Z",
    quorum=3,
    opened_at="2026-11-21T21:12:00.000Z",
    eta_seconds=75.5,
    protocol_version=2,
)
STATUS = CoordinatorStatus(
    consortium="example",
    version="0.1.0",
    started_at="2026-11-21T20:12:00.000Z",
    now="2026-11-21T22:12:00.000Z",
    ledger_size=44,
    members_active=4,
    trainers_connected=3,
    runs_active=1,
    blob_bytes=1 << 34,
    disk_free_bytes=1 << 40,
    certificate_expires_at="2027-11-21T20:12:00.000Z",
    authority_expires_at="2036-11-21T20:12:00.000Z",
    open_calls=7,
    fingerprint="d4" * 32,
    recovering="The coordinator recovers and signs nothing: its ledger has 40 entries.",
)
INSTITUTION = InstitutionView(
    "north", ("trainer", "auditor"), "active", "2026-11-21T22:12:00.000Z", "2027-11-21T20:12:00.000Z"
)


def examples() -> dict[str, Any]:
    """By the message's name."""
    made = [*_common(), *_work(), *_blobs(), *_enrolment(), *_operations(), *_log()]
    return {message.DESCRIPTOR.name: message for message in made}


def _common() -> list[Any]:
    entries = convert.entries_to_wire(ENTRIES)
    return [
        entries.entries[0].envelope,
        entries.entries[0],
        convert.blob_ref_to_wire(REF),
        convert.leaves_to_wire(LEAVES),
        convert.piece_to_wire(PIECE),
        convert.transfer_to_wire(MOVING),
        common_pb2.ErrorDetail(code="wrong-parent", message="Expected round 3, got round 2.", fix="Follow the ledger."),
    ]


def _work() -> list[Any]:
    follow = convert.follow_request_to_wire(
        41, wait_seconds=30, cosignature=COSIGNATURE, cosigned_size=40, seen_size=44, lineage=12
    )
    proposals = convert_log.proposals_to_wire([PROPOSAL])
    present = convert_recovery.present_to_wire(PRESENTED)
    return [
        follow,
        follow.cosignature,
        convert.entries_to_wire(ENTRIES),
        convert.submit_request_to_wire(b'{"payload":"YQ=="}', MetricsRecord(b'{"tokens":1}', b"\x05" * 32)),
        work_pb2.SubmitResponse(index=43),
        convert.report_to_wire(REPORT),
        work_pb2.ReportResponse(round_open=True),
        convert.entries_to_wire(ENTRIES).inquiries[0],
        convert.estimate_to_wire(ESTIMATE),
        work_pb2.EstimateResponse(),
        work_pb2.ProposalsRequest(),
        proposals,
        proposals.proposals[0],
        convert_log.approve_request_to_wire("c4" * 32, b"\x0c" * 64),
        convert_log.approved_to_wire(APPROVED),
        present,
        present.metrics[0],
        convert_recovery.wanted_to_wire(Wanted(True, 41, (REF,), ("c4" * 32,), 12)),
    ]


def _log() -> list[Any]:
    return [
        log_pb2.HeadRequest(old_size=41),
        convert_log.head_to_wire(HEAD),
        log_pb2.ProveRequest(index=17),
        log_pb2.ProveResponse(receipt=b"c2sp.org/tlog-proof@v1\n"),
    ]


def _blobs() -> list[Any]:
    begun = convert.missing_to_wire([(1, 1)])
    put = blobs_pb2.PutRequest(
        ref=convert.blob_ref_to_wire(REF), purpose=convert.purpose_to_wire(ROUND), piece=convert.piece_to_wire(PIECE)
    )
    return [
        convert.purpose_to_wire(ROUND),
        convert.begin_request_to_wire(REF, LEAVES, Purpose(plan="tiny-0a1b2c")),
        begun,
        begun.missing[0],
        put,
        blobs_pb2.PutResponse(chunks_stored=1, complete=True),
        blobs_pb2.FindBulkRequest(),
        blobs_pb2.FindBulkResponse(port=7445),
        convert.leaves_request_to_wire(REF),
        convert.get_request_to_wire(REF, 1, 1, verify=True),
    ]


def _enrolment() -> list[Any]:
    return [
        convert.enrolment_request_to_wire(ENROLMENT),
        enrolled_to_wire(Enrolled("-----BEGIN CERTIFICATE-----\n", 7)),
        enrolment_pb2.DiagnoseRequest(certificate_pem="-----BEGIN CERTIFICATE-----\n"),
        convert.diagnosis_to_wire(DIAGNOSIS),
        convert.renewal_request_to_wire(RENEWAL),
        renewed_to_wire(Enrolled("-----BEGIN CERTIFICATE-----\n", 8)),
    ]


def _operations() -> list[Any]:
    view, institution = run_view_to_wire(VIEW), institution_to_wire(INSTITUTION)
    estimate = estimate_view_to_wire(EstimateView("north", "ask", ("outside-hours",), 3.5, ("daily 18:00-07:00 UTC",)))
    return [
        operations_pb2.InviteRequest(institution="south", expires_hours=72, roles=["trainer", "witness"]),
        operations_pb2.InviteResponse(invitation="-----BEGIN LLMASOS INVITATION-----\n"),
        operations_pb2.ListInstitutionsRequest(),
        institution,
        operations_pb2.ListInstitutionsResponse(institutions=[institution]),
        operations_pb2.StartRunRequest(plan_json=b'{"run":"tiny-0a1b2c"}'),
        operations_pb2.StartRunResponse(run="tiny-0a1b2c"),
        operations_pb2.ListRunsRequest(),
        operations_pb2.ListRunsResponse(runs=[view]),
        operations_pb2.WatchRunRequest(run="tiny"),
        operations_pb2.ControlRunRequest(
            run="tiny", action="extend", reason="maintenance", rounds=12, deadline_seconds=900, to_round=3
        ),
        operations_pb2.ControlRunResponse(index=44),
        operations_pb2.RevokeRequest(institution="south", reason="key-lost"),
        operations_pb2.RevokeResponse(index=45),
        operations_pb2.InquireRequest(plan_json=b'{"run":"tiny-0a1b2c"}', wait_milliseconds=5000),
        operations_pb2.InquireResponse(estimates=[estimate]),
        estimate,
        operations_pb2.RunLogsRequest(run="tiny", institution="north", follow=True),
        log_line_to_wire(LogLine("2026-11-21T22:12:00.000Z", 3, "north", "activity", "training")),
        operations_pb2.StatusRequest(),
        status_to_wire(STATUS),
        operations_pb2.WithdrawProposalRequest(payload_sha256=b"\x0d" * 32),
        operations_pb2.WithdrawProposalResponse(),
        operations_pb2.DeleteMetricsRequest(run="tiny", institution="south"),
        operations_pb2.DeleteMetricsResponse(deleted=3),
        view,
        view.participants[0],
        view.rounds[0],
        view.rounds[0].evaluations[0],
        view.refusals[0],
    ]
