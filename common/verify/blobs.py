"""Blobs that lie here: each is read once, and is the bytes that the ledger names by Merkle root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.blobs.reader import chunk_buffer
from common.blobs.reference import BlobRef
from common.errors import BlobError
from common.ledger.state import RunRecord
from common.ledger.tasks import offered_blobs
from common.verify.material import Blobs
from common.verify.report import Check, Finding, Outcome


def check_blobs(runs: Sequence[RunRecord], blobs: Blobs) -> Check:
    """Every model, tokenizer, delta and state of these runs that is held and that no recomputation reads anyway."""
    findings: list[Finding] = []
    named: dict[BlobRef, tuple[str, int]] = {}
    read_elsewhere: set[BlobRef] = set()
    for run in runs:
        read_elsewhere.update(_inputs(run, blobs))
        for what, leaf, ref in named_blobs(run):
            named.setdefault(ref, (what, leaf))
    held = 0
    for ref, (what, leaf) in named.items():
        if not blobs.contains(ref):
            continue
        held += 1
        if ref in read_elsewhere:
            continue
        try:
            _read(blobs, ref)
        except BlobError as err:
            text = f"{what} is held here, but not as it was: {err.message} ({err.code})"
            findings.append(Finding(Outcome.FAILED, text, leaf, str(ref), err.code))
    question = "Are the models and deltas that lie here the bytes that the ledger names?"
    return Check("blobs", question, f"{held} of {len(named)} are held here", tuple(findings))


def named_blobs(run: RunRecord) -> Iterator[tuple[str, int, BlobRef]]:
    """What it is, the index of the entry that names it, and its reference."""
    yield f"The initial model of {run.run}", run.place.index, run.statement.initial.model
    yield f"The tokenizer of {run.run}", run.place.index, run.statement.initial.tokenizer
    for record in run.rounds:
        where = f"round {record.number} of {run.run}"
        for name, entry in record.contributions.items():
            for kind, ref in entry.contribution.blobs.items():
                yield f"The {kind} of {name} for {where}", entry.place.index, ref
        if record.closed is not None and record.closed_place is not None:
            outputs, leaf = record.closed.outputs, record.closed_place.index
            yield f"The model of {where}", leaf, outputs.model
            for name, output in (("applied delta", outputs.applied_delta), ("server_state", outputs.server_state)):
                if output is not None:
                    yield f"The {name} of {where}", leaf, output


def _inputs(run: RunRecord, blobs: Blobs) -> list[BlobRef]:
    """What the recomputation of this run's rounds reads, and verifies chunk by chunk."""
    read: list[BlobRef] = []
    for record in run.ever_committed("train"):
        inputs = record.closed.inputs if record.closed else ()
        used = [each.institution for each in inputs if each.status == "used"]
        state = record.opened.inputs.server_state
        starts = [record.opened.inputs.model, *([state] if state is not None else [])]
        offered = (offered_blobs(record.contributions[name].contribution) for name in used)
        refs = [*starts, *(ref for blobs_of_one in offered for ref in blobs_of_one.values())]
        read += refs if all(blobs.contains(ref) for ref in refs) else []
    return read


def _read(blobs: Blobs, ref: BlobRef) -> None:
    """
    Raises:
        BlobError: a chunk, or the list of leaves, was changed.
    """
    with blobs.open(ref) as reader:
        buffer = chunk_buffer(ref)
        for index in range(ref.chunks):
            reader.read_chunk(index, buffer)
