from __future__ import annotations

from typing import Any

import pytest

from common.blobs.reference import BlobRef
from common.errors import MalformedMessage
from common.wire import convert as wire_convert
from common.wire.messages import ActivityReport, Cosignature, EnrolmentRequest, Purpose
from common.wire.v1 import blobs_pb2, enrolment_pb2, operations_pb2, work_pb2
from coordinator.api import convert
from coordinator.api.convert_views import (
    institution_from_wire,
    institution_to_wire,
    run_view_from_wire,
    run_view_to_wire,
)
from coordinator.ports import (
    Activity,
    EvaluationView,
    InstitutionView,
    Metrics,
    ParticipantView,
    RefusalView,
    RoundView,
    RunView,
    Steering,
    UploadPurpose,
)

REF = BlobRef(algorithm="sha256", size=9, root="12" * 32)


def a_report(**changes: Any) -> work_pb2.ReportRequest:
    return work_pb2.ReportRequest(**{"run": "tiny-000001", "round": 3, "activity": "training"} | changes)


def an_offer(**changes: Any) -> enrolment_pb2.EnrolRequest:
    request = EnrolmentRequest("invitation-1", b"s" * 32, b"csr", b"k" * 32, b"p" * 64, b"e" * 32)
    message = wire_convert.enrolment_request_to_wire(request)
    for field, value in changes.items():
        setattr(message, field, value)
    return message


def an_invite(**changes: Any) -> operations_pb2.InviteRequest:
    fields: dict[str, Any] = {"institution": "north", "expires_hours": 72, "roles": ["trainer"]}
    return operations_pb2.InviteRequest(**fields | changes)


def test_an_activity_arrives_as_it_was_reported() -> None:
    report = ActivityReport("tiny-000001", 3, "training", 1, 2, 3, 4, 5, -6)
    assert convert.activity_from_wire(wire_convert.report_to_wire(report)) == Activity(
        "tiny-000001", 3, "training", 1, 2, 3, 4, 5, -6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": ""}, "ReportRequest.run: expected 1 to 63 lower-case letters, digits and hyphens, got ''."),
        ({"activity": "idling"}, "ReportRequest.activity: expected one of fetching, preparing, evaluating, training, "),
        ({"round": 2**53}, "ReportRequest.round: expected 0 to 9,007,199,254,740,991, got 9,007,199,254,740,992."),
        ({"bytes_up": 2**64 - 1}, "ReportRequest.bytes_up: expected 0 to 9,007,199,254,740,991, got 18,446,744,"),
        ({"loss_fixed": -(2**53)}, "ReportRequest.loss_fixed: expected below 2^53, got -9,007,199,254,740,992."),
    ],
)
def test_a_bad_report_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        convert.activity_from_wire(a_report(**changes))
    assert error.value.message.startswith(message)


def test_an_offer_arrives_whole() -> None:
    offer = convert.enrolment_offer_from_wire(an_offer())
    assert (offer.invitation_id, offer.secret, offer.csr_der) == ("invitation-1", b"s" * 32, b"csr")
    assert (offer.signing_key, offer.proof, offer.encryption_key) == (b"k" * 32, b"p" * 64, b"e" * 32)
    assert convert.enrolment_offer_from_wire(an_offer(encryption_key=b"")).encryption_key is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"invitation_id": ""}, "EnrolRequest.invitation_id: expected 1 to 100 characters, got 0."),
        ({"secret": b"short"}, "EnrolRequest.secret: expected 32 bytes, got 5."),
        ({"csr_der": b""}, "EnrolRequest.csr_der: expected 1 to 8,192 bytes, got 0."),
        ({"signing_key": b"k" * 33}, "EnrolRequest.signing_key: expected 32 bytes, got 33."),
        ({"proof": b"p"}, "EnrolRequest.proof: expected 64 bytes, got 1."),
        ({"encryption_key": b"e"}, "EnrolRequest.encryption_key: expected 32 bytes, got 1."),
    ],
)
def test_a_bad_offer_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        convert.enrolment_offer_from_wire(an_offer(**changes))
    assert error.value.message == message


def test_metrics_come_with_their_salt_or_not_at_all() -> None:
    assert convert.metrics_from_wire(work_pb2.SubmitRequest()) is None
    both = work_pb2.SubmitRequest(metrics=b"{}", metrics_salt=b"s" * 32)
    assert convert.metrics_from_wire(both) == Metrics(b"{}", b"s" * 32)
    with pytest.raises(MalformedMessage, match=r"SubmitRequest.metrics_salt: expected 32 bytes, got 0\."):
        convert.metrics_from_wire(work_pb2.SubmitRequest(metrics=b"{}"))
    with pytest.raises(MalformedMessage, match=r"SubmitRequest.metrics: expected 1 to 65,536 bytes, got 0\."):
        convert.metrics_from_wire(work_pb2.SubmitRequest(metrics_salt=b"s" * 32))


def test_a_wait_beyond_the_limit_is_refused() -> None:
    asked = convert.follow_from_wire(work_pb2.FollowRequest(from_index=3, wait_milliseconds=250))
    assert asked == convert.FollowAsked(3, 0.25)
    cosigned = work_pb2.FollowRequest(cosignature=work_pb2.Cosignature(size=7, signature=bytes(72)), cosigned_size=5)
    assert convert.follow_from_wire(cosigned) == convert.FollowAsked(0, 0.0, Cosignature(7, bytes(72)), 5)
    with pytest.raises(MalformedMessage, match=r"FollowRequest.wait_milliseconds: expected 0 to 30,000, got 30,001\."):
        convert.follow_from_wire(work_pb2.FollowRequest(wait_milliseconds=30_001))


def test_an_uploads_purpose_arrives() -> None:
    header = wire_convert.put_header_to_wire(REF, Purpose(plan="tiny-000001"))
    assert convert.upload_request_from_wire(header).purpose == UploadPurpose(plan="tiny-000001")


def test_a_stream_without_first_message_is_refused() -> None:
    with pytest.raises(MalformedMessage, match=r"PutRequest.ref is absent: the stream ended before its first message"):
        convert.put_from_wire(iter(()))


@pytest.mark.parametrize("field", ["ref", "purpose"])
def test_an_upload_without_reference_or_purpose_is_refused(field: str) -> None:
    header = wire_convert.put_header_to_wire(REF, Purpose(plan="tiny-000001"))
    header.ClearField(field)
    with pytest.raises(MalformedMessage, match=rf"PutRequest.{field} is absent\."):
        convert.put_from_wire(iter([header]))


def test_a_message_of_a_stream_without_piece_is_refused() -> None:
    header = wire_convert.put_header_to_wire(REF, Purpose(plan="tiny-000001"))
    _, pieces = convert.put_from_wire(iter([header, blobs_pb2.PutRequest()]))
    with pytest.raises(MalformedMessage, match=r"PutRequest.piece is absent\."):
        next(pieces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"institution": "North"},
            "InviteRequest.institution: expected 1 to 63 lower-case letters, digits and hyphens",
        ),
        ({"expires_hours": 9000}, "InviteRequest.expires_hours: expected 0 to 8,784, got 9,000."),
        (
            {"roles": []},
            "InviteRequest.roles: expected some of trainer, evaluator, witness, auditor, viewer, operator, got [].",
        ),
        (
            {"roles": ["king"]},
            "InviteRequest.roles: expected some of trainer, evaluator, witness, auditor, viewer, operator, got ",
        ),
    ],
)
def test_a_bad_invite_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        convert.invite_from_wire(an_invite(**changes))
    assert error.value.message.startswith(message)


def test_an_invite_arrives() -> None:
    assert convert.invite_from_wire(an_invite(roles=["trainer", "auditor"])) == ("north", 72, ("trainer", "auditor"))


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("abort", {}),
        ("extend", {"rounds": 12}),
        ("extend", {"deadline_seconds": 900}),
        ("rollback", {"to_round": 0}),
    ],
)
def test_a_control_arrives_with_what_belongs_to_it(action: str, given: dict[str, int]) -> None:
    request = operations_pb2.ControlRunRequest(run="tiny", action=action, reason="operator", **given)  # type: ignore[arg-type]
    assert convert.control_from_wire(request) == ("tiny", action, "operator", Steering(**given))


@pytest.mark.parametrize(
    ("action", "given", "message"),
    [
        (
            "explode",
            {},
            r"ControlRunRequest.action: expected one of pause, resume, extend, rollback, abort, got 'explode'",
        ),
        ("rollback", {}, "rollback needs exactly one of to_round"),
        ("extend", {}, "extend needs exactly one of rounds, deadline_seconds"),
        ("extend", {"rounds": 3, "deadline_seconds": 9}, "extend needs exactly one of rounds, deadline_seconds"),
        ("pause", {"to_round": 1}, "ControlRunRequest.to_round is nothing that pause asks for"),
    ],
)
def test_a_control_with_more_or_less_is_refused(action: str, given: dict[str, int], message: str) -> None:
    request = operations_pb2.ControlRunRequest(run="tiny", action=action, reason="operator", **given)  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage, match=message):
        convert.control_from_wire(request)


def test_a_draft_above_a_mebibyte_is_refused() -> None:
    with pytest.raises(
        MalformedMessage, match=r"StartRunRequest.plan_json: expected 1 to 1,048,576 bytes, got 1,048,577\."
    ):
        convert.plan_json_from_wire(operations_pb2.StartRunRequest(plan_json=bytes(1024 * 1024 + 1)))


def a_run_view() -> RunView:
    """Every field set to something that is not its default."""
    participant = ParticipantView("north", "training", 1, 2, 3, 4, 5, 0, ("too-busy",), 6.5)
    evaluation = EvaluationView("pooled", 1 << 40, 99, 3)
    entry = RoundView(1, "train", "committed", ("north", "south"), ("north",), 1.25, 7, 8, (evaluation,), "all-in")
    refusal = RefusalView(11, "south", 1, "wrong-parent", "signed-by")
    return RunView("tiny-1", "tiny", "ended", 2, 3, (participant,), (entry,), (refusal,), "rounds", REF, "2026-01-01")


def test_a_view_survives_the_wire() -> None:
    assert run_view_from_wire(run_view_to_wire(a_run_view())) == a_run_view()


def test_an_empty_view_survives_the_wire() -> None:
    view = RunView("tiny-1", "tiny", "answering", 0, 3, participants=(ParticipantView("north", "asked"),))
    assert run_view_from_wire(run_view_to_wire(view)) == view


def test_an_institution_survives_the_wire() -> None:
    view = InstitutionView("north", ("trainer", "auditor"), "active", "2026-01-01T00:00:00.000Z")
    assert institution_from_wire(institution_to_wire(view)) == view
