from __future__ import annotations

from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES, MAX_BLOB_BYTES, BlobRef
from common.errors import BadBlobReference, MalformedMessage
from common.wire import convert
from common.wire.messages import (
    ActivityReport,
    Diagnosis,
    EnrolmentRequest,
    LedgerEntries,
    MetricsRecord,
    Piece,
    Purpose,
)
from common.wire.v1 import blobs_pb2, common_pb2, enrolment_pb2, work_pb2

REF = BlobRef(algorithm="blake3", size=2 * CHUNK_BYTES + 1, root="ab" * 32)


def test_a_blob_reference_survives_the_wire() -> None:
    assert convert.blob_ref_from_wire(convert.blob_ref_to_wire(REF)) == REF


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "md5"}, "BlobRef.algorithm: expected one of blake3, sha256, got 'md5'."),
        ({"size": MAX_BLOB_BYTES + 1}, "BlobRef.size: expected 0 to 17,592,186,044,416, got 17,592,186,044,417."),
        ({"root": b"short"}, "BlobRef.root: expected 32 bytes, got 5."),
        ({"root": b""}, "BlobRef.root: expected 32 bytes, got 0."),
    ],
)
def test_a_bad_blob_reference_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    wire = common_pb2.BlobRef(**{"algorithm": "blake3", "size": 1, "root": bytes(32)} | changes)
    with pytest.raises(MalformedMessage) as error:
        convert.blob_ref_from_wire(wire)
    assert error.value.message == message


def test_leaves_survive_the_wire() -> None:
    assert convert.leaves_from_wire(convert.leaves_to_wire(b"l" * 96), REF) == b"l" * 96


def test_a_leaf_list_of_another_length_is_refused() -> None:
    with pytest.raises(BadBlobReference, match=r"LeafList.hashes: expected 96 bytes for blake3:abab.*got 64\."):
        convert.leaves_from_wire(convert.leaves_to_wire(b"l" * 64), REF)


def test_a_piece_survives_the_wire() -> None:
    piece = Piece(chunk=2, offset=7, data=b"data")
    assert convert.piece_from_wire(convert.piece_to_wire(piece)) == piece


@pytest.mark.parametrize("size", [0, convert.MAX_PIECE_BYTES + 1])
def test_a_piece_of_no_or_too_many_bytes_is_refused(size: int) -> None:
    with pytest.raises(MalformedMessage, match=rf"ChunkPiece.data: expected 1 to 2,097,152 bytes, got {size:,}\."):
        convert.piece_from_wire(common_pb2.ChunkPiece(data=bytes(size)))


@pytest.mark.parametrize("purpose", [Purpose(round_opened="cd" * 32), Purpose(plan="tiny-0a1b2c")])
def test_a_purpose_survives_the_wire(purpose: Purpose) -> None:
    assert convert.purpose_from_wire(convert.purpose_to_wire(purpose)) == purpose


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (blobs_pb2.Purpose(), "Purpose.purpose is absent: expected round_opened, plan or recovery."),
        (blobs_pb2.Purpose(round_opened=b"x"), "Purpose.round_opened: expected 32 bytes, got 1."),
        (
            blobs_pb2.Purpose(plan="../x"),
            "Purpose.plan: expected 1 to 63 lower-case letters, digits and hyphens, got '../x'.",
        ),
    ],
)
def test_a_bad_purpose_is_refused(wire: blobs_pb2.Purpose, message: str) -> None:
    with pytest.raises(MalformedMessage) as error:
        convert.purpose_from_wire(wire)
    assert error.value.message == message


def test_a_purpose_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="a purpose is a round, a plan or a recovery, one of the three"):
        Purpose()


def test_missing_ranges_survive_the_wire() -> None:
    assert convert.missing_from_wire(convert.missing_to_wire([(0, 1), (2, 1)]), REF) == [(0, 1), (2, 1)]


@pytest.mark.parametrize("ranges", [[(0, 4)], [(0, 0)], [(1, 1), (0, 1)], [(0, 2), (1, 1)], [(2**32 - 1, 2**32 - 1)]])
def test_missing_ranges_that_no_blob_can_have_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(MalformedMessage, match=r"BeginResponse.missing: expected ascending ranges inside 3 chunks"):
        convert.missing_from_wire(convert.missing_to_wire(ranges), REF)


@pytest.mark.parametrize(
    ("asked", "taken"), [(0, 2**20), (1, 2**18), (2**19, 2**19), (2**21, 2**21), (2**32 - 1, 2**21)]
)
def test_pieces_are_as_large_as_asked_inside_what_both_ends_bear(asked: int, taken: int) -> None:
    assert convert.piece_bytes_from_wire(asked) == taken


def test_ledger_entries_survive_the_wire() -> None:
    entries = LedgerEntries(first_index=5, envelopes=(b"a", b"b"), ledger_size=9)
    assert convert.entries_from_wire(convert.entries_to_wire(entries), from_index=5) == entries


def test_no_news_survives_the_wire() -> None:
    entries = LedgerEntries(first_index=5, envelopes=(), ledger_size=3)
    assert convert.entries_from_wire(convert.entries_to_wire(entries), from_index=5) == entries


def test_entries_from_another_index_are_refused() -> None:
    wire = convert.entries_to_wire(LedgerEntries(first_index=5, envelopes=(b"a",), ledger_size=9))
    with pytest.raises(MalformedMessage, match=r"LedgerEntry.index: expected 4, got 5\."):
        convert.entries_from_wire(wire, from_index=4)


def test_entries_beyond_the_ledgers_size_are_refused() -> None:
    wire = convert.entries_to_wire(LedgerEntries(first_index=0, envelopes=(b"a", b"b"), ledger_size=1))
    with pytest.raises(MalformedMessage, match=r"FollowResponse.ledger_size: expected at least 2, got 1\."):
        convert.entries_from_wire(wire, from_index=0)


def test_an_entry_without_envelope_is_refused() -> None:
    wire = work_pb2.FollowResponse(entries=[common_pb2.LedgerEntry(index=0)], ledger_size=1)
    with pytest.raises(MalformedMessage, match=r"LedgerEntry.envelope is absent\."):
        convert.entries_from_wire(wire, from_index=0)


@pytest.mark.parametrize("size", [0, convert.MAX_ENVELOPE_BYTES + 1])
def test_an_envelope_of_no_or_too_many_bytes_is_refused(size: int) -> None:
    with pytest.raises(MalformedMessage, match=rf"Envelope.json: expected 1 to 1,048,576 bytes, got {size:,}\."):
        convert.envelope_from_wire(common_pb2.Envelope(json=bytes(size)))


@pytest.mark.parametrize(("seconds", "milliseconds"), [(-1, 0), (0.25, 250), (31, 30_000)])
def test_a_wait_is_at_most_thirty_seconds(seconds: float, milliseconds: int) -> None:
    assert convert.follow_request_to_wire(3, wait_seconds=seconds).wait_milliseconds == milliseconds


def test_metrics_travel_beside_the_envelope() -> None:
    wire = convert.submit_request_to_wire(b"{}", MetricsRecord(b"metrics", b"s" * 32))
    assert (wire.envelope.json, wire.metrics, wire.metrics_salt) == (b"{}", b"metrics", b"s" * 32)


def test_a_salt_is_not_in_a_records_text() -> None:
    assert "secret" not in repr(MetricsRecord(b"metrics", b"secret"))


def test_a_loss_is_absent_when_it_is_not_to_be_seen() -> None:
    report = ActivityReport("tiny", 1, "training", loss_fixed=None)
    assert not convert.report_to_wire(report).HasField("loss_fixed")
    assert convert.report_to_wire(ActivityReport("tiny", 1, "training", loss_fixed=0)).HasField("loss_fixed")


def test_an_enrolment_without_encryption_key_sends_none() -> None:
    request = EnrolmentRequest("invitation-1", b"secret", b"csr", b"key", b"proof")
    assert convert.enrolment_request_to_wire(request).encryption_key == b""
    assert "secret" not in repr(request).replace("secret=", "")


def test_an_enrolment_reply_without_certificate_is_refused() -> None:
    with pytest.raises(
        MalformedMessage, match=r"EnrolResponse.certificate_pem: expected 1 to 16,384 characters, got 0\."
    ):
        convert.enrolment_from_wire(enrolment_pb2.EnrolResponse())


def test_a_diagnosis_survives_the_wire() -> None:
    diagnosis = Diagnosis("ok", "all is well", "", "2026-01-01T00:00:00.000Z")
    assert convert.diagnosis_from_wire(convert.diagnosis_to_wire(diagnosis)) == diagnosis


def test_a_diagnosis_of_no_code_is_refused() -> None:
    with pytest.raises(MalformedMessage, match=r"DiagnoseResponse.code: expected a kebab-case code, got '\\x1b\[2J'\."):
        convert.diagnosis_from_wire(enrolment_pb2.DiagnoseResponse(code="\x1b[2J"))
