"""Schedules the exact reducer over the blob store: inputs, output, what may be deleted. No arithmetic here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from common.blobs.reader import BlobReader
from common.blobs.store import FolderBlobStore
from common.blobs.writer import BlobWriter
from common.errors import InvalidConfiguration
from common.ledger.acceptances import accepted_before
from common.ledger.downlink import applied_delta_bytes, server_state_bytes, useful_deltas
from common.ledger.staleness import weight
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.logs import get_logger
from common.reduce import Beside, ReduceJob, WeightedDelta, reduce_round
from common.statements.kinds import PlanStatement, RoundOutputs, SealedInput

if TYPE_CHECKING:
    from coordinator.flower.strategy import FlowerCombiner

log = get_logger(__name__)

UNREFERENCED_SECONDS = 3600.0
"""A whole blob that no statement names is kept so long: its statement may be on the way."""

WALK_SECONDS = 60.0
"""The folder is walked so often for blobs that no statement names, and whenever retention gives up more."""


class _Watched:
    """A delta's file that tells of each read: adding up a large round takes hours, and who does it lives."""

    def __init__(self, reader: BlobReader, beat: Callable[[], None]) -> None:
        self._reader, self._beat = reader, beat
        self.ref = reader.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        self._beat()
        return self._reader.read_chunk(index, into)

    def read_unverified(self, position: int, into: memoryview) -> None:
        self._beat()
        self._reader.read_unverified(position, into)


class Aggregation:
    """The engine's Aggregator over a folder of blobs.

    Args:
        awaited: roots that drafts name, which may become statements: kept too.
        foreign: what combines rounds of plans whose rule is `operator`.
        beat: called again and again while a round is added up; any thread.
    """

    def __init__(
        self,
        blobs: FolderBlobStore,
        awaited: Callable[[], set[str]] = set,
        foreign: FlowerCombiner | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._blobs, self._foreign, self._beat = blobs, foreign, beat
        self._awaited = awaited
        self._gone: set[str] = set()
        self._awaited_before: set[str] = set()
        self._walk_at = 0.0

    def aggregate(self, run: RunRecord, current: RoundRecord, inputs: Sequence[SealedInput]) -> RoundOutputs:
        """The new model, and what the plan's rounds leave besides it, durable; constant memory for any model and cohort.

        Raises:
            BlobError: an input is missing or its bytes changed.
        """
        plan = run.statement.plan
        base, state = current.opened.inputs.model, current.opened.inputs.server_state
        used = [entry for entry in inputs if entry.status == "used"]
        with ExitStack() as stack:
            job = ReduceJob(
                plan=plan,
                manifest=run.statement.manifest,
                base=stack.enter_context(self._blobs.open(base)),
                deltas=[self._open_delta(stack, run, current, entry) for entry in used],
                server_state=stack.enter_context(self._blobs.open(state)) if state is not None else None,
                accepted=accepted_before(run, current),
            )
            writer = stack.enter_context(self._blobs.writer(base.algorithm, about=base.size))
            applied, kept = (
                None if size is None else stack.enter_context(self._blobs.writer(base.algorithm, about=size))
                for size in (applied_delta_bytes(run.statement), server_state_bytes(run.statement))
            )
            started = time.monotonic()
            if plan.rule.type == "operator":
                self._combine(run, current, job, writer)
            else:
                reduce_round(
                    job, writer.write, Beside(applied.write if applied else None, kept.write if kept else None)
                )
            outputs = RoundOutputs(
                model=writer.commit(),
                server_state=kept.commit() if kept else None,
                applied_delta=applied.commit() if applied else None,
            )
        log.info(
            "model written",
            extra={"run": run.run, "round": current.number, "seconds": round(time.monotonic() - started, 3)},
        )
        return outputs

    def _combine(self, run: RunRecord, current: RoundRecord, job: ReduceJob, writer: BlobWriter) -> None:
        from coordinator.flower.strategy import RoundWork  # here: flwr is there only where a strategy is configured

        earlier = [record.number for record in run.committed("train") if record.number < current.number]
        before = earlier[-1] if earlier else None
        work = RoundWork(job.plan, job.manifest, job.base, job.deltas, run.run, current.number, before)
        self._combiner().combine(work, writer.write)

    def _combiner(self) -> FlowerCombiner:
        """
        Raises:
            InvalidConfiguration: none is configured.
        """
        if self._foreign is None:
            raise InvalidConfiguration(
                "The plan's rule is `operator`, but this coordinator's configuration names no strategy.",
                "Set aggregation.flower in coordinator.yaml, or take another rule.",
            )
        return self._foreign

    def rule(self, run: RunRecord) -> str:
        """For the statement of a round that `aggregate` combined."""
        rule = run.statement.plan.rule.type
        return self._combiner().rule if rule == "operator" else rule

    def check_plan(self, plan: PlanStatement) -> None:
        """
        Raises:
            InvalidConfiguration: the plan leaves its rule to an operator who has named none.
            BlobTooLarge: what is named would need more memory for the plan's smallest round than is allowed.
        """
        if plan.plan.rule.type == "operator":
            self._combiner().check(plan.manifest, plan.plan.quorum)

    def _open_delta(self, stack: ExitStack, run: RunRecord, current: RoundRecord, entry: SealedInput) -> WeightedDelta:
        named = current.contributions[entry.institution].contribution.blobs
        delta, control = (
            stack.enter_context(self._blobs.open(named[name])) if name in named else None
            for name in ("delta", "control")
        )
        if delta is None:
            raise ValueError(f"the contribution of {entry.institution} names no delta")
        return WeightedDelta(
            entry.institution,
            weight(run.statement.plan.weighting, current, entry),
            _Watched(delta, self._beat),
            control,
        )

    def expire(self, state: LedgerState) -> None:
        """Delete what the plans' retention gives up, then whole blobs and unfinished uploads that no statement names."""
        if not state.active_runs:
            self._blobs.drop_spares()
        awaited = self._awaited()
        due = time.monotonic() >= self._walk_at or awaited != self._awaited_before
        if not due and not state.departures and not any(_gives_up(run) for run in state.runs.values()):
            return  # nothing was given up since the last walk
        keep, given_up = kept_roots(state)
        keep, given_up = keep | awaited, given_up - awaited
        if given_up == self._gone and not due:
            return
        cutoff = time.time() - UNREFERENCED_SECONDS
        for ref, modified in self._blobs.list():
            if ref.root in given_up:
                (self._blobs.retire if state.active_runs else self._blobs.delete)(ref)
            elif ref.root not in keep and modified < cutoff:
                self._blobs.delete(ref, older_than=cutoff)
        self._gone, self._awaited_before = given_up, awaited
        self._walk_at = time.monotonic() + WALK_SECONDS
        if not any(run.open_round for run in state.active_runs):
            for owner in self._blobs.upload_owners():
                self._blobs.discard_uploads(owner, older_than=cutoff)

    def erase(self, state: LedgerState, institution: str) -> bool:
        """Delete the deltas of an institution that left, and what it had begun to send (membership.Eraser)."""
        keep, _ = kept_roots(state)
        self._blobs.discard_uploads(institution)
        self._blobs.drop_spares()
        open_rounds = False
        for run in state.runs.values():
            for record in run.rounds:
                entry = record.contributions.get(institution)
                if entry is None:
                    continue
                open_rounds = open_rounds or record.closed is None
                for ref in entry.contribution.blobs.values():
                    if ref.root not in keep:
                        self._blobs.delete(ref)
        return not open_rounds


def kept_roots(state: LedgerState) -> tuple[set[str], set[str]]:
    """Roots that statements name: those that retention keeps, and those that it gives up.

    Initial and newest models and tokenizers are always kept; while a run goes on its newest server_state, and applied deltas
    that are still of use; a round's deltas, base model and server_state as long as the plan says, and while the round is open.
    Deltas of an institution that left are given up as soon as their round is closed, unless somebody else's statement needs
    them too.
    """
    keep: set[str] = set()
    named: set[str] = set()
    for run in state.runs.values():
        keep |= {run.statement.initial.model.root, run.statement.initial.tokenizer.root, run.model.root}
        if run.ended is None:
            keep |= {ref.root for ref in (run.server_state, *useful_deltas(run)) if ref is not None}
        first_kept = _first_kept(run)
        for position, record in enumerate(run.rounds):
            stays = position >= first_kept or record.closed is None
            starts = (record.opened.inputs.model, record.opened.inputs.server_state)
            (keep if stays else named).update(ref.root for ref in starts if ref is not None)
            if record.closed is not None:
                named |= {ref.root for ref in record.closed.outputs.blobs}
            for name, entry in record.contributions.items():
                wanted = stays and (record.closed is None or name not in state.departures)
                (keep if wanted else named).update(ref.root for ref in entry.contribution.blobs.values())
    return keep, named - keep


def _gives_up(run: RunRecord) -> bool:
    """Whether its rounds leave blobs that are not kept: by a bound in its plan, applied deltas that are of no more use, or the
    last server_state of a run that ended."""
    plan = run.statement.plan
    bounded = plan.retention.delta_rounds is not None or plan.retention.delta_bytes is not None
    return bounded or plan.downlink is not None or plan.leaves_server_state


def _first_kept(run: RunRecord) -> int:
    """Position of the oldest round whose deltas the plan's retention keeps.

    By rounds: the newest ones, whatever their task and outcome. By bytes: from the newest closed round on, as long as the
    deltas together are within the bound; the newest that has any is kept however large they are, so that there is always one
    round to recompute. With both, the stricter.
    """
    retention = run.statement.plan.retention
    first = 0 if retention.delta_rounds is None else max(0, len(run.rounds) - retention.delta_rounds)
    if retention.delta_bytes is None:
        return first
    total = 0
    for position in range(len(run.rounds) - 1, first - 1, -1):
        record = run.rounds[position]
        size = _delta_bytes(record) if record.closed is not None else 0
        if total and total + size > retention.delta_bytes:
            return position + 1
        total += size
    return first


def _delta_bytes(record: RoundRecord) -> int:
    return sum(ref.size for entry in record.contributions.values() for ref in entry.contribution.blobs.values())
