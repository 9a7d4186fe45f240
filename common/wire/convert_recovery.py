"""Between wire messages and checked values: what institutions present to a recovering coordinator, and what it wants.

As in convert.py, `*_from_wire` treats the message as hostile: presence, range and size. What the entries, the note and the
proof say is verified by who takes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.errors import MalformedMessage
from common.ledger.receipts import MAX_PROOF_HASHES
from common.wire import check
from common.wire.convert import (
    DIGEST_BYTES,
    MAX_FOLLOW_BYTES,
    MAX_METRICS_BYTES,
    blob_ref_from_wire,
    blob_ref_to_wire,
    envelope_from_wire,
)
from common.wire.messages import MetricsRecord, Presented, Wanted
from common.wire.v1 import common_pb2, work_pb2

MAX_CHECKPOINT_BYTES = 4096
MAX_PRESENTED_ENTRIES = 512
MAX_WANTED = 16


def present_to_wire(presented: Presented) -> work_pb2.PresentRequest:
    return work_pb2.PresentRequest(
        checkpoint=presented.checkpoint,
        entries=[
            common_pb2.LedgerEntry(index=index, envelope=common_pb2.Envelope(json=envelope))
            for index, envelope in enumerate(presented.envelopes, start=presented.first_index)
        ],
        consistency=presented.consistency,
        metrics=[
            work_pb2.PresentedMetrics(
                contribution=bytes.fromhex(digest), metrics=record.content, metrics_salt=record.salt
            )
            for digest, record in presented.metrics
        ],
        lacking=[blob_ref_to_wire(ref) for ref in presented.lacking],
    )


def present_from_wire(message: work_pb2.PresentRequest) -> Presented:
    """
    Raises:
        MalformedMessage: too many of something, too much, or entries that are not consecutive.
    """
    entries = check.repeated(message, "entries", MAX_PRESENTED_ENTRIES)
    first = check.integer(entries[0], "index") if entries else 0
    envelopes = tuple(_consecutive(entries, first))
    if sum(map(len, envelopes)) > MAX_FOLLOW_BYTES:
        raise MalformedMessage(f"PresentRequest.entries: expected at most {MAX_FOLLOW_BYTES:,} bytes together.")
    return Presented(
        checkpoint=check.at_most(message, "checkpoint", MAX_CHECKPOINT_BYTES),
        first_index=first,
        envelopes=envelopes,
        consistency=_hashes(message, "consistency", MAX_PROOF_HASHES),
        metrics=tuple(_metrics(each) for each in check.repeated(message, "metrics", MAX_WANTED)),
        lacking=tuple(blob_ref_from_wire(each) for each in check.repeated(message, "lacking", MAX_WANTED)),
    )


def wanted_to_wire(wanted: Wanted) -> work_pb2.PresentResponse:
    return work_pb2.PresentResponse(
        recovering=wanted.recovering,
        ledger_size=wanted.ledger_size,
        wanted_blobs=[blob_ref_to_wire(ref) for ref in wanted.blobs],
        wanted_metrics=[bytes.fromhex(digest) for digest in wanted.metrics],
        lineage=wanted.lineage,
    )


def wanted_from_wire(message: work_pb2.PresentResponse) -> Wanted:
    """
    Raises:
        MalformedMessage: too many of something, or a digest that is none.
    """
    return Wanted(
        recovering=message.recovering,
        ledger_size=check.integer(message, "ledger_size"),
        blobs=tuple(blob_ref_from_wire(each) for each in check.repeated(message, "wanted_blobs", MAX_WANTED)),
        metrics=tuple(each.hex() for each in _hashes(message, "wanted_metrics", MAX_WANTED)),
        lineage=check.integer(message, "lineage"),
    )


def _consecutive(entries: Sequence[common_pb2.LedgerEntry], first: int) -> Iterator[bytes]:
    for index, entry in enumerate(entries, start=first):
        if entry.index != index:
            raise MalformedMessage(f"LedgerEntry.index: expected {index:,}, got {entry.index:,}.")
        yield envelope_from_wire(check.present(entry, "envelope"))


def _metrics(message: work_pb2.PresentedMetrics) -> tuple[str, MetricsRecord]:
    digest = check.exactly(message, "contribution", DIGEST_BYTES)
    content = check.at_most(message, "metrics", MAX_METRICS_BYTES, least=1)
    return digest.hex(), MetricsRecord(content, check.exactly(message, "metrics_salt", DIGEST_BYTES))


def _hashes(message: work_pb2.PresentRequest | work_pb2.PresentResponse, field: str, most: int) -> tuple[bytes, ...]:
    hashes = tuple(bytes(each) for each in check.repeated(message, field, most))
    if any(len(each) != DIGEST_BYTES for each in hashes):
        raise MalformedMessage(f"{message.DESCRIPTOR.name}.{field}: expected values of {DIGEST_BYTES} bytes.")
    return hashes
