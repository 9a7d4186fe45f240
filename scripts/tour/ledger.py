"""A recording, read as the protocol's parties read it: statements by kind, and the sizes of the calls that carried them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common.blobs.reference import BlobRef
from common.statements.envelope import UnverifiedStatement, parse
from common.statements.kinds import Kind, PlanStatement
from common.wire import convert
from common.wire.channel import MESSAGE_BYTES
from common.wire.messages import LedgerEntries, MetricsRecord, Piece, Purpose
from common.wire.v1 import blobs_pb2, work_pb2
from scripts.tour.markdown import Call, pretty
from scripts.tour.recording import Recording

_BY_INSTITUTIONS = frozenset({Kind.ANSWER, Kind.CONTRIBUTION, Kind.ATTESTATION})

FOLLOW_SECONDS = 20.0


@dataclass(frozen=True)
class Entry:
    """A statement at its place."""

    index: int
    appended_at: str
    statement: UnverifiedStatement

    @property
    def payload(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.statement.payload)
        return found

    @property
    def predicate(self) -> dict[str, Any]:
        found: dict[str, Any] = self.payload["predicate"]
        return found

    @property
    def signer(self) -> str:
        kind = self.statement.kind
        return str(self.predicate["institution"]) if kind in _BY_INSTITUTIONS else "coordinator"

    @property
    def shown(self) -> str:
        """The payload, for people."""
        return pretty(self.payload)


class TourLedger:
    """The recorded ledger."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.entries = [
            Entry(index, row["appended_at"], parse(row["envelope"].encode()))
            for index, row in enumerate(recording.ledger)
        ]

    def all(self, kind: Kind) -> list[Entry]:
        return [entry for entry in self.entries if entry.statement.kind is kind]

    def first(self, kind: Kind) -> Entry:
        return self.all(kind)[0]

    def of(self, kind: Kind, institution: str) -> Entry:
        """The first one of that kind by that institution."""
        return next(entry for entry in self.all(kind) if entry.signer == institution)

    @property
    def plan(self) -> PlanStatement:
        predicate = self.first(Kind.PLAN).statement.predicate
        if not isinstance(predicate, PlanStatement):
            raise TypeError("the recorded plan is none")
        return predicate

    def metrics(self, number: int) -> MetricsRecord:
        """What travelled beside the shown institution's contribution to that round."""
        signed = self.recording.signed[number - 1]
        return MetricsRecord(signed["metrics"].encode(), bytes.fromhex(signed["salt"]))

    def worker_said(self, *types: str) -> str:
        """Messages of the private socket, the first of each type."""
        return "\n".join(self._said(wanted) for wanted in types)

    def _said(self, wanted: str) -> str:
        each = next(line for line in self.recording.worker if line["message"]["type"] == wanted)
        hearer = "worker" if each["from"] == "agent" else "agent"
        return f"{each['from']} → {hearer}\n{pretty(each['message'])}"


# --- sizes of calls ----------------------------------------------------------------------------------------------------------


def follow(entry: Entry) -> Call:
    """A long poll that this entry ends."""
    request = convert.follow_request_to_wire(entry.index, wait_seconds=FOLLOW_SECONDS)
    reply = convert.entries_to_wire(LedgerEntries(entry.index, (entry.statement.envelope,), entry.index + 1))
    return Call("Work.Follow", request.ByteSize(), reply.ByteSize(), f"ledger entry {entry.index}")


def submit(entry: Entry, metrics: MetricsRecord | None = None) -> Call:
    request = convert.submit_request_to_wire(entry.statement.envelope, metrics)
    carries = f"the {entry.statement.kind}" + (", metrics and salt" if metrics else "")
    return Call("Work.Submit", request.ByteSize(), work_pb2.SubmitResponse(index=entry.index).ByteSize(), carries)


def upload(ref: BlobRef, purpose: Purpose, name: str) -> tuple[Call, Call]:
    """Begin and Put of a blob of one chunk, whose leaf list is its root."""
    begin = convert.begin_request_to_wire(ref, _leaves(ref), purpose).ByteSize()
    put = convert.put_header_to_wire(ref, purpose).ByteSize()
    put += sum(convert.put_piece_to_wire(piece).ByteSize() for piece in _pieces(ref))
    stored = blobs_pb2.PutResponse(chunks_stored=ref.chunks, complete=True).ByteSize()
    return (
        Call("Blobs.Begin", begin, convert.missing_to_wire([(0, ref.chunks)]).ByteSize(), f"{name}: what is missing?"),
        Call("Blobs.Put", put, stored, f"{name}, {ref.size:,} bytes"),
    )


def download(ref: BlobRef, name: str) -> tuple[Call, Call]:
    """Leaves and Get of a blob of one chunk."""
    leaves = convert.leaves_to_wire(_leaves(ref)).ByteSize()
    got = sum(convert.piece_to_wire(piece).ByteSize() for piece in _pieces(ref))
    return (
        Call("Blobs.Leaves", convert.leaves_request_to_wire(ref).ByteSize(), leaves, f"{name}: leaf list"),
        Call(
            "Blobs.Get", convert.get_request_to_wire(ref, 0, ref.chunks).ByteSize(), got, f"{name}, {ref.size:,} bytes"
        ),
    )


def _leaves(ref: BlobRef) -> bytes:
    if ref.chunks != 1:
        raise ValueError("the tour's blobs have one chunk each")
    return bytes.fromhex(ref.root)


def _pieces(ref: BlobRef) -> list[Piece]:
    """Pieces of the right sizes; what is in them does not count here."""
    starts = range(0, ref.size, MESSAGE_BYTES)
    return [Piece(0, offset, bytes(min(MESSAGE_BYTES, ref.size - offset))) for offset in starts]
