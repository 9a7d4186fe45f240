"""Rounds recomputed: from the sealed deltas to the new model with the very reducer that the coordinator runs, bit for bit.

inputs are here, or can be brought  ─▶ recomputed: the ledger's model, or another one
they are not, an auditor attests    ─▶ its word, under its name
neither                             ─▶ a gap, and why
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from common.blobs.reference import BlobRef
from common.blobs.writer import LeafCounter
from common.codecs import codec
from common.errors import BlobError, DeltaError, MissingBlob
from common.ledger.acceptances import accepted_before
from common.ledger.staleness import weights
from common.ledger.state import RoundRecord, RunRecord
from common.ledger.tasks import OfferedName, offered_blobs
from common.plan.model import Plan
from common.reduce import Beside, ReduceJob, WeightedDelta, inspect_delta, reduce_round
from common.statements.kinds import RoundOutputs
from common.tensors import trainable_header
from common.verify.material import Blobs
from common.verify.report import Check, Finding, Outcome

OnRound = Callable[[str, int], None]
NOT_HELD = "not held here"


@runtime_checkable
class Fetching(Blobs, Protocol):
    """Blobs of which more can be brought for a round."""

    def bring(self, refs: Sequence[BlobRef]) -> Mapping[BlobRef, str]:
        """Fetch what is lacking of these, all or nothing; for those that do not come, why, as in "X is not visible"."""
        ...

    def let_go(self) -> None:
        """What was brought for a round is needed no more."""
        ...


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What a round's inputs give: a model and what belongs to it, or a fault of theirs, or nothing, since some are lacking."""

    outputs: RoundOutputs | None = None
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of inputs by why they are lacking."""
    fault: BlobError | DeltaError | None = None

    @property
    def model(self) -> BlobRef | None:
        return self.outputs.model if self.outputs else None


def check_rounds(run: RunRecord, blobs: Blobs | None, on_round: OnRound) -> Check:
    """Every committed training round of a run: equal, different, attested by an auditor, or neither and why."""
    findings: list[Finding] = []
    equal = attested = neither = 0
    auditors: set[str] = set()
    committed = run.ever_committed("train")
    for record in committed:
        found = recompute_round(run, record, blobs)
        findings += [*_judged(run, record, found), *_contradicted(run, record, found.model)]
        words = _words(run, record)
        if found.lacking:
            attested, neither, auditors = attested + bool(words), neither + (not words), auditors | words
        elif found.fault is None and record.closed is not None:
            equal += found.outputs == record.closed.outputs
        on_round(run.run, record.number)
    question = f"Does each round of {run.run} follow from its sealed contributions?"
    examined = f"{equal} of {len(committed)} recomputed here, equal in every bit"
    if attested:
        examined += f"; {attested} attested by {', '.join(sorted(auditors))}; {neither} neither"
    return Check("rounds", question, examined, tuple(findings))


def _judged(run: RunRecord, record: RoundRecord, found: Recomputed) -> list[Finding]:
    """What is wrong with a round, or lacks, as far as it was recomputed here."""
    closed, place = record.closed, record.closed_place
    if closed is None or place is None:
        raise ValueError(f"round {record.number} is not closed")
    where, committed = f"Round {record.number} of {run.run}", str(closed.outputs.model)
    if found.lacking:
        if _words(run, record):
            return []
        text = f"{where} was not recomputed: {in_words(found.lacking)}."
        others = sorted(name for name, each in record.attestations.items() if each.attestation.result == "equal")
        if others:
            text += f" {', '.join(others)} attests it, to whom the plan that institutions accepted shows no delta."
        return [Finding(Outcome.GAPS, text, place.index, committed)]
    if found.fault is not None:
        text = f"{where} cannot be recomputed: {found.fault.message} ({found.fault.code})"
        return [Finding(Outcome.FAILED, text, place.index, committed, found.fault.code, "coordinator")]
    if found.outputs is None or found.outputs == closed.outputs:
        return []
    name, wanted, got = first_difference(found.outputs, closed.outputs)
    text = f"{where} was committed with another {name} than its contributions give."
    return [Finding(Outcome.FAILED, text, place.index, wanted, got, "coordinator")]


def first_difference(computed: RoundOutputs, committed: RoundOutputs) -> tuple[str, str, str]:
    """Which output of two unequal sets is another one, as it was computed, as it was committed."""
    for name in ("model", "applied_delta", "server_state"):
        wanted, got = getattr(computed, name), getattr(committed, name)
        if wanted != got:
            return name, str(wanted), str(got)
    raise ValueError("equal outputs")


def _words(run: RunRecord, record: RoundRecord) -> set[str]:
    """Auditors whose `equal` stands in for a recomputation: those of the plan, which every trainer accepted.

    Of anybody else whom the operator gave the role, perhaps after the run, nobody knows how it read the deltas.
    """
    audience = run.statement.plan.delta_audience
    return {
        name for name, entry in record.attestations.items() if name in audience and entry.attestation.result == "equal"
    }


def _contradicted(run: RunRecord, record: RoundRecord, model: BlobRef | None) -> list[Finding]:
    """Attestations that the ledger, or what was recomputed here, contradicts; each is its auditor's word."""
    findings = []
    committed = record.closed.outputs.model if record.closed else None
    for name, entry in sorted(record.attestations.items()):
        said, where = entry.attestation, f"round {record.number} of {run.run}"
        if said.result == "different":
            text = f"{name} recomputed {where} and found another model than was committed."
            text += " Recomputed here it is the one that was committed." if model == committed else ""
            wanted, got = said.model, committed
        elif model is not None and model != committed:
            text = f"{name} attests {where} as equal, which it is not."
            wanted, got = model, said.model
        else:
            continue
        findings.append(Finding(Outcome.FAILED, text, entry.place.index, str(wanted), str(got), name))
    return findings


def recompute_round(run: RunRecord, record: RoundRecord, blobs: Blobs | None) -> Recomputed:
    """What the sealed contributions of a committed round give, once what can be brought of them is here."""
    if run.statement.plan.rule.type == "operator":
        rule = record.closed.rule if record.closed is not None else ""
        return Recomputed(lacking={f"is the operator's own ({rule})": ("the rule that combined it",)})
    why: Mapping[BlobRef, str] = {}
    try:
        if isinstance(blobs, Fetching):
            why = blobs.bring([ref for _, ref in _inputs(record)])
        lacking = lacking_inputs(record, blobs, why)
        if blobs is None or lacking:
            return Recomputed(lacking=lacking)
        return Recomputed(recompute(run, record, blobs))
    except MissingBlob as err:
        return Recomputed(lacking={f"given up while they were read: {err.message}": ("inputs",)})
    except (BlobError, DeltaError) as err:
        return Recomputed(fault=err)
    finally:
        if isinstance(blobs, Fetching):
            blobs.let_go()


def lacking_inputs(
    record: RoundRecord, blobs: Blobs | None, why: Mapping[BlobRef, str] = MappingProxyType({})
) -> Mapping[str, tuple[str, ...]]:
    """Names of those inputs of a recomputation that are not here, by why: NOT_HELD, where `why` does not say."""
    lacking: dict[str, tuple[str, ...]] = {}
    for name, ref in _inputs(record):
        if blobs is None or not blobs.contains(ref):
            reason = why.get(ref, NOT_HELD)
            lacking[reason] = (*lacking.get(reason, ()), name)
    return lacking


def in_words(lacking: Mapping[str, tuple[str, ...]]) -> str:
    """As "the base model, the delta of east not held here; the delta of north not visible to south"."""
    return "; ".join(f"{', '.join(names)} {why}" for why, names in lacking.items())


def recompute(run: RunRecord, record: RoundRecord, blobs: Blobs) -> RoundOutputs:
    """The references of what the sealed contributions give; nothing is kept of the bytes.

    Each delta is inspected too, as the coordinator had to: one that is too long for the plan gives a model all the same.

    Raises:
        BlobError: an input is missing, or its bytes are not what its reference says.
        DeltaError: the inputs give no model, or a delta should not have been taken.
    """
    plan, algorithm = run.statement.plan, record.opened.inputs.model.algorithm
    model, applied, state = (LeafCounter(algorithm) for _ in range(3))
    with round_job(run, record, blobs) as job:
        for delta in job.deltas:
            _inspect(plan, trainable_header(run.statement.manifest), delta)
        beside = Beside(applied.update if plan.downlink else None, state.update if plan.leaves_server_state else None)
        reduce_round(job, model.update, beside)
    return RoundOutputs(
        model=model.result()[0],
        server_state=state.result()[0] if plan.leaves_server_state else None,
        applied_delta=applied.result()[0] if plan.downlink else None,
    )


@contextmanager
def round_job(run: RunRecord, record: RoundRecord, blobs: Blobs, *, without: str = "") -> Iterator[ReduceJob]:
    """A committed round's inputs, open; one institution's delta may be left out.

    Raises:
        BlobError: an input is missing, or its reference is not one.
    """
    weighted, inputs = weights(run, record), record.opened.inputs
    with ExitStack() as stack:
        base = stack.enter_context(blobs.open(inputs.model))
        start = stack.enter_context(blobs.open(inputs.server_state)) if inputs.server_state is not None else None
        deltas = [
            WeightedDelta(name, weighted[name], *(stack.enter_context(blobs.open(ref)) for ref in refs.values()))
            for name, refs in _offered(record)
            if name != without
        ]
        plan, manifest = run.statement.plan, run.statement.manifest
        yield ReduceJob(plan, manifest, base, deltas, start, accepted_before(run, record))


def _inputs(record: RoundRecord) -> list[tuple[str, BlobRef]]:
    """What a recomputation needs, in words."""
    deltas = [(f"the {kind} of {name}", ref) for name, refs in _offered(record) for kind, ref in refs.items()]
    state = record.opened.inputs.server_state
    starts = [("the base model", record.opened.inputs.model)]
    starts += [("the server_state", state)] if state is not None else []
    return [*starts, *deltas]


def _offered(record: RoundRecord) -> list[tuple[str, dict[OfferedName, BlobRef]]]:
    """Of each used contribution the blobs that make the outputs: `delta`, then `control` where there is one."""
    used = [entry.institution for entry in (record.closed.inputs if record.closed else ()) if entry.status == "used"]
    return [(name, offered_blobs(record.contributions[name].contribution)) for name in used]


def _inspect(plan: Plan, header: bytes, delta: WeightedDelta) -> None:
    inspect_delta(delta.reader, header, max_l2=float(plan.max_delta_l2), codec=codec(plan.codec))
    if delta.control is not None and plan.max_control_l2 is not None:
        inspect_delta(delta.control, header, max_l2=float(plan.max_control_l2), name="control")
