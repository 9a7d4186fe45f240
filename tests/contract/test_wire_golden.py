"""Wire version 1, byte for byte: what any release wrote, every later one reads, and writes the same.

The golden files hold serialised messages as hexadecimal digits, one file a message. A message or field that is added later
gets bytes of its own; bytes that stand here never change. New files are written by `python -m tests.contract.test_wire_golden`,
which touches none that exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.wire import convert
from coordinator.api.convert import (
    activity_from_wire,
    enrolment_offer_from_wire,
    estimate_from_wire,
    renewal_offer_from_wire,
)
from coordinator.api.convert_views import institution_from_wire, run_view_from_wire, status_from_wire
from coordinator.ports import Activity
from tests.contract import wire_examples as given

GOLDEN = Path(__file__).with_name("golden") / "wire-v1"
EXAMPLES = given.examples()
KINDS = {name: type(message) for name, message in EXAMPLES.items()}


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def read(name: str) -> Any:
    return KINDS[name].FromString(golden(name))


def test_every_message_of_version_1_has_golden_bytes() -> None:
    defined = {name for module in given.MODULES for name in module.DESCRIPTOR.message_types_by_name}
    assert set(EXAMPLES) == defined
    assert {path.stem for path in GOLDEN.iterdir()} == defined


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_every_field_is_in_the_golden_bytes(name: str) -> None:
    message = read(name)
    alone = {"Purpose": 1, "PutRequest": 3}
    assert len(message.ListFields()) == alone.get(name, len(message.DESCRIPTOR.fields))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_message_is_written_as_ever(name: str) -> None:
    assert EXAMPLES[name].SerializeToString(deterministic=True) == golden(name)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_message_is_read_as_ever(name: str) -> None:
    assert read(name) == EXAMPLES[name]
    assert read(name).SerializeToString(deterministic=True) == golden(name)


def test_golden_bytes_are_read_as_the_values_that_they_were_made_from() -> None:
    assert convert.blob_ref_from_wire(read("BlobRef")) == given.REF
    assert convert.leaves_from_wire(read("LeafList"), given.REF) == given.LEAVES
    assert convert.piece_from_wire(read("ChunkPiece")) == given.PIECE
    assert convert.purpose_from_wire(read("Purpose")) == given.ROUND
    assert convert.missing_from_wire(read("BeginResponse"), given.REF) == [(1, 1)]
    assert convert.entries_from_wire(read("FollowResponse"), from_index=41) == given.ENTRIES
    assert convert.diagnosis_from_wire(read("DiagnoseResponse")) == given.DIAGNOSIS
    assert run_view_from_wire(read("RunView")) == given.VIEW
    assert convert.port_from_wire(read("FindBulkResponse")) == 7445
    assert institution_from_wire(read("Institution")) == given.INSTITUTION
    assert status_from_wire(read("StatusResponse")) == given.STATUS


def test_golden_requests_are_read_as_the_values_that_they_were_made_from() -> None:
    report, offer = given.REPORT, enrolment_offer_from_wire(read("EnrolRequest"))
    assert activity_from_wire(read("ReportRequest")) == Activity(
        report.run,
        report.round,
        report.activity,
        report.steps_done,
        report.steps_total,
        report.tokens_done,
        report.bytes_down,
        report.bytes_up,
        report.loss_fixed,
        report.available_at,
        report.transfer,
    )
    assert (offer.invitation_id, offer.secret, offer.csr_der) == ("inv-1", b"\x01" * 32, b"\x30\x82csr")
    assert (offer.signing_key, offer.proof, offer.encryption_key) == (b"\x02" * 32, b"\x03" * 64, b"\x04" * 32)
    renewal = renewal_offer_from_wire(read("RenewRequest"))
    assert convert.renewal_request_to_wire(given.RENEWAL) == read("RenewRequest")
    assert (renewal.institution, renewal.replaces_serial, renewal.csr_der) == ("north", "1f", b"\x30\x82csr")
    assert (renewal.new_signing_key, renewal.new_proof) == (b"\x08" * 32, b"\x09" * 64)
    assert estimate_from_wire(read("EstimateRequest")) == given.ESTIMATE


def write_new() -> None:
    """Adds golden bytes of messages that have none."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, message in EXAMPLES.items():
        path = GOLDEN / f"{name}.hex"
        if not path.exists():
            digits = message.SerializeToString(deterministic=True).hex()
            lines = [digits[start : start + 96] for start in range(0, len(digits), 96)]
            path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write_new()
