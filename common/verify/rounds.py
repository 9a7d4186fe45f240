"""Rounds recomputed: from the sealed deltas to the new model with the very reducer that the coordinator runs, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from common.blobs.reference import BlobRef
from common.blobs.writer import LeafCounter
from common.errors import BlobError, DeltaError
from common.ledger.state import RoundRecord, RunRecord
from common.reduce import ReduceJob, WeightedDelta, reduce_round
from common.verify.material import Blobs
from common.verify.report import Check, Finding, Outcome

OnRound = Callable[[str, int], None]


def check_rounds(run: RunRecord, blobs: Blobs | None, on_round: OnRound) -> Check:
    """Every committed training round of a run: equal, different, or not recomputed here and why."""
    findings: list[Finding] = []
    equal = 0
    committed = run.committed("train")
    for record in committed:
        found = _recompute(run, record, blobs)
        equal += found is None
        findings += [found] if found else []
        on_round(run.run, record.number)
    question = f"Does each round of {run.run} follow from its sealed contributions?"
    return Check(
        "rounds", question, f"{equal} of {len(committed)} recomputed here, equal in every bit", tuple(findings)
    )


def _recompute(run: RunRecord, record: RoundRecord, blobs: Blobs | None) -> Finding | None:
    """None when the recomputed model is the ledger's."""
    closed, place = record.closed, record.closed_place
    if closed is None or place is None:
        raise ValueError(f"round {record.number} is not closed")
    where = f"Round {record.number} of {run.run}"
    missing = missing_inputs(record, blobs)
    if blobs is None or missing:
        text = f"{where} was not recomputed: {', '.join(missing)} not held here."
        return Finding(Outcome.GAPS, text, place.index, str(closed.outputs.model))
    try:
        model = recompute(run, record, blobs)
    except (BlobError, DeltaError) as err:
        text = f"{where} cannot be recomputed: {err.message} ({err.code})"
        return Finding(Outcome.FAILED, text, place.index, str(closed.outputs.model), err.code, "coordinator")
    if model == closed.outputs.model:
        return None
    text = f"{where} was committed with another model than its contributions give."
    return Finding(Outcome.FAILED, text, place.index, str(model), str(closed.outputs.model), "coordinator")


def missing_inputs(record: RoundRecord, blobs: Blobs | None) -> list[str]:
    """What a recomputation would need and this reader does not hold, in words."""
    wanted = [("the base model", record.opened.inputs.model)]
    wanted += [(f"the delta of {name}", ref) for name, ref in _deltas(record)]
    return [name for name, ref in wanted if blobs is None or not blobs.contains(ref)]


def recompute(run: RunRecord, record: RoundRecord, blobs: Blobs) -> BlobRef:
    """The reference of the model that the sealed contributions give; nothing is kept of its bytes.

    Raises:
        BlobError: an input is missing, or its bytes are not what its reference says.
        DeltaError: the inputs give no model.
    """
    weights = {entry.institution: entry.num_tokens for entry in (record.closed.inputs if record.closed else ())}
    counter = LeafCounter(record.opened.inputs.model.algorithm)
    with ExitStack() as stack:
        base = stack.enter_context(blobs.open(record.opened.inputs.model))
        deltas = [
            WeightedDelta(name, weights[name], stack.enter_context(blobs.open(ref))) for name, ref in _deltas(record)
        ]
        job = ReduceJob(plan=run.statement.plan, manifest=run.statement.manifest, base=base, deltas=deltas)
        reduce_round(job, counter.update)
    return counter.result()[0]


def _deltas(record: RoundRecord) -> list[tuple[str, BlobRef]]:
    used = [entry.institution for entry in (record.closed.inputs if record.closed else ()) if entry.status == "used"]
    return [(name, record.contributions[name].contribution.blobs["delta"]) for name in used]
