"""One round at an institution: measure the base model, train, write the delta, keep the optimizer's moments.

A round that was interrupted goes on from its newest snapshot and ends with the same bits. The local optimizer's moments come
from the newest round that was trained to its end, always by way of the disk: so a restarted worker and one that never stopped
do the same.

Each of several ranks runs all of this. Rank 0 decides what could differ between them (which snapshot, when the next one is
due, whether to end), and alone writes what is for all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from common.blobs.plain_file import open_as_blob
from common.errors import CorruptChunk, StorageFailure
from llmasos.evaluation.perplexity import LossSums, loss_sums, measure
from llmasos.models.tensors import gather_delta, read_tensors, write_delta
from llmasos.tasks.base import Batch
from llmasos.tasks.registry import objective_of
from llmasos.training.background import BackgroundWriter
from llmasos.training.device import Machine
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone
from llmasos.training.memory import SMALLER_MICRO_BATCH
from llmasos.training.pipeline import pipeline_of
from llmasos.training.ranks import ALONE, Ranks
from llmasos.training.scaffold import RoundControl
from llmasos.training.snapshot import Record, Snapshot, State
from llmasos.training.weighing import num_bytes
from participant.bench.worker_protocol import Evaluate, EvaluationSums, Progress, Result, SnapshotTaken, Train
from participant.worker.agent_side import AgentSide, StopRequested
from participant.worker.job import Job
from participant.worker.tracking import RoundTracking

log = logging.getLogger(__name__)

ENVIRONMENT_CHANGED = "environment-changed"
"""Deviation code: the round went on from a snapshot of another device, number of threads or ranks, CPU capability or release.
"""
PERSONAL_LOST = "personal-lost"
"""Deviation code: the personal layers that the round was to start from are gone; it started from their initial values."""
MOMENTS_LOST = "moments-lost"
"""Deviation code: the local optimizer's moments of the round before are damaged on disk; this one began with none."""
CONTROL_LOST = "control-lost"
"""Deviation code: the control variate that the round was to start from is gone; it started from zeros."""
_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What a round needs besides its message. `monotonic` counts seconds."""

    job: Job
    machine: Machine
    agent: AgentSide
    snapshot_seconds: float
    monotonic: Callable[[], float]
    ranks: Ranks = ALONE
    tensorboard: Path | None = None
    """Where TensorBoard's event files go, a folder a run."""


def evaluate_round(request: Evaluate, context: RoundContext) -> Result:
    """Measure the model and change nothing.

    Raises:
        StopRequested: the agent wants the worker to end; measuring begins again another time.
    """
    started = context.monotonic()
    _checked_base(request, context.job)
    try:
        measured = _measure_base(request, context)
    finally:
        _rest(context)
    return Result(
        round=request.round,
        task="evaluate",
        evaluation=_to_message(measured.sums),
        seconds=context.monotonic() - started,
        deviations=measured.deviations,
    )


def train_round(request: Train, context: RoundContext) -> Result:
    """Train from the base model, or go on from the round's newest snapshot, and leave the delta where the agent wants it.

    Raises:
        StopRequested: the agent wants the worker to end; a snapshot was taken first.
        NonFiniteDelta: training diverged.
        OutOfMemory: memory is too little for one sequence at a time.
        CorruptChunk, StorageFailure, WrongTensors: about the files of the job folder.
    """
    started = context.monotonic()
    trained = TrainedRound(request, context)
    try:
        sums = trained.run()
    finally:
        context.agent.snapshot_wanted.clear()
        _rest(context)
    return Result(
        round=request.round,
        task="train",
        evaluation=_to_message(trained.record.evaluation),
        delta=request.delta,
        num_tokens=sums.num_tokens,
        num_bytes=num_bytes(context.job.corpus, context.job.tokenizer, request.seed, sums.steps),
        train_loss_fixed=sums.mean_loss_fixed,
        seconds=context.monotonic() - started,
        deviations=tuple(sorted(trained.deviations)),
    )


class TrainedRound:
    """One training round; `record` describes its state at the newest step boundary."""

    def __init__(self, request: Train, context: RoundContext) -> None:
        self._request = request
        self._context = context
        self._wanted = _wanted_micro_batch(context.job)
        self._keep_moments = context.job.statement.plan.local.optimizer_state == "keep"
        self._ranks = context.ranks
        self._snapshots = context.job.snapshots(self._ranks.rank)
        self._snapshot_at = context.monotonic() + context.snapshot_seconds
        self._progress_at = 0.0
        self.record = self._fresh_record()
        self.deviations: set[str] = set()

    def run(self) -> RoundSums:
        """Evaluate, train, write the delta, keep the state; each step of it may be the first after a restart."""
        with BackgroundWriter(self._snapshots, self._snapshot_written) as self._writer:
            return self._run()

    def _run(self) -> RoundSums:
        job, request = self._context.job, self._request
        if self._ranks.is_first:
            self._snapshots.remove_unfinished()
        resumed = self._found(self._resumed) if request.resume else None
        if resumed is None:
            measured = _measure_base(request, self._context)
            evaluation, found, micro_batch = measured.sums, set(measured.deviations), measured.micro_batch
        else:
            record = resumed[0].record
            found, evaluation = {*_read_model(request, job), *record.deviations}, record.evaluation
            micro_batch = min(record.micro_batch or self._wanted, _first_micro_batch(request, job))
        self.record = self.record.model_copy(update={"evaluation": evaluation})
        self.deviations |= found
        training = LocalTraining(job.statement.plan, job.model, self._context.machine, self._ranks)
        training.micro_batch = micro_batch
        training.anchor({entry.name for entry in job.statement.manifest if entry.group == "trainable"})
        self.deviations |= set(training.deviations)
        control = self._control(training)
        done = self._restore(training, resumed)
        del resumed  # as large as the training itself
        work = RoundWork(trained_rounds=request.trained_rounds, seed=request.seed, done=done, steps=request.steps)
        with closing(self._tracking(done)) as tracking:
            trained = training.run_round(
                work,
                lambda step: job.corpus.batch(seed=request.seed, step=step),
                lambda boundary: self._at_boundary(training, boundary, tracking),
            )
        if training.micro_batch < self._wanted:
            self.deviations.add(SMALLER_MICRO_BATCH)
        if self._keep_moments and trained != done:
            self._writer.finish()
            self._begin(training, trained, copied=False)  # weights and moments stay as they are from here on
        if self._ranks.is_first:
            self._write_results(training, work, control)
        else:
            gather_delta(job.model, job.statement.manifest)
        self._writer.finish()
        return trained

    def _write_results(self, training: LocalTraining, work: RoundWork, control: RoundControl | None) -> None:
        """What the agent sends, and what the next round starts from."""
        job, request = self._context.job, self._request
        job.personal.write(job.model, request.round)
        job.personal.keep_only((request.personal, request.round))
        delta = job.path(request.delta)
        delta.parent.mkdir(parents=True, exist_ok=True)
        spare = job.path(request.spare) if request.spare is not None else None
        write_delta(delta, job.path(request.base), job.model, job.statement.manifest, spare=spare)
        if control is not None and request.control is not None:
            control.finish(delta, training.total_rate(work), request.round, job.path(request.control))
            job.controls.keep_only((request.control_round, request.round))

    def _control(self, training: LocalTraining) -> RoundControl | None:
        """What steps are corrected by: made of files that stay as they are until the round is over, so no snapshot has it."""
        job, request = self._context.job, self._request
        if request.control is None:
            return None
        server = job.path(request.server_state) if request.server_state is not None else None
        control = RoundControl(job.statement, job.controls, request.control_round, server)
        training.correct(control.corrections)
        self.deviations |= {CONTROL_LOST} if control.lost else set()
        return control

    def _found(self, find: Callable[[], tuple[Snapshot, State] | None]) -> tuple[Snapshot, State] | None:
        """What rank 0 finds, on every rank.

        Raises:
            StorageFailure: this rank cannot read what rank 0 could.
        """
        found = find() if self._ranks.is_first else None
        name = self._ranks.told_text(found[0].folder.name if found is not None else "")
        if self._ranks.is_first or not name:
            return found
        snapshot = self._snapshots.named(name)
        if snapshot is None:
            raise StorageFailure(f"Snapshot {name}, which rank 0 has read, is not there for rank {self._ranks.rank}.")
        return snapshot, snapshot.load()

    def _resumed(self) -> tuple[Snapshot, State] | None:
        """This round's newest snapshot that is whole. Without one the round begins again, with the same bits."""
        while (snapshot := self._snapshots.newest_of(self.record)) is not None:
            try:
                return snapshot, snapshot.load()
            except StorageFailure as err:
                log.warning("snapshot removed, the round goes on from an earlier state: %s", err.message)
                self._snapshots.remove(snapshot)
        return None

    def _restore(self, training: LocalTraining, resumed: tuple[Snapshot, State] | None) -> RoundSums:
        """Weights and moments from where this round stopped, or moments from the round before."""
        if resumed is not None:
            snapshot, state = resumed
            if snapshot.record.environment != self.record.environment:
                self.deviations.add(ENVIRONMENT_CHANGED)
            training.load_weights(state.weights)
            training.load_moments(state.moments)
            record = snapshot.record
            return RoundSums(record.step, record.tokens, record.loss_sum_fixed)
        if self._keep_moments and (before := self._found(self._moments_before)) is not None:
            self._take_moments(training, *before)
        return RoundSums()

    def _take_moments(self, training: LocalTraining, snapshot: Snapshot, state: State) -> None:
        try:
            training.load_moments(state.moments)
            lost = False
        except StorageFailure as err:
            log.warning("moments of the round before are lost: %s", err.message)
            lost = True
        if not self._ranks.any(lost):
            return
        training.load_moments({})
        self.deviations.add(MOMENTS_LOST)
        if self._ranks.is_first:
            self._snapshots.remove(snapshot)

    def _moments_before(self) -> tuple[Snapshot, State] | None:
        """Those of the newest round that was trained to its end; damaged ones are no moments of any round, and those of a round
        that was taken back are nobody's any more."""
        before = self._snapshots.newest_finished_before(self.record.run, self.record.round)
        if self._snapshots.has_unreadable_before(self.record.round):
            self.deviations.add(MOMENTS_LOST)
            return None
        if before is None or self._was_taken_back(before.record.round):
            return None
        try:
            return before, before.load()
        except StorageFailure as err:
            log.warning("moments of the round before are lost: %s", err.message)
            self.deviations.add(MOMENTS_LOST)
            self._snapshots.remove(before)
            return None

    def _was_taken_back(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._request.rolled_back)

    def _tracking(self, done: RoundSums) -> RoundTracking:
        context = self._context
        return RoundTracking(
            None if context.tensorboard is None else context.tensorboard / self.record.run,
            steps_before=self._request.trained_rounds * context.job.statement.plan.local.steps,
            done=done,
            monotonic=context.monotonic,
        )

    def _at_boundary(self, training: LocalTraining, boundary: StepDone, tracking: RoundTracking) -> None:
        tracking.step(boundary)
        agent, now = self._context.agent, self._context.monotonic()
        if now >= self._progress_at or boundary.step == boundary.steps:
            self._progress_at = now + _PROGRESS_SECONDS
            agent.send(_progress(self._request.round, boundary))
        if boundary.step == boundary.steps:
            return  # the delta comes at once, and the state with it
        wanted, stopping = agent.snapshot_wanted.is_set(), agent.stop_wanted.is_set()
        due = stopping or ((wanted or now >= self._snapshot_at) and not self._writer.busy)
        stopping, due = (bool(one) for one in self._ranks.told(stopping, due))
        if due:
            self._writer.finish()  # at rank 0 it is ready unless this one is the last
        if due and self._begin(training, boundary.sums, copied=not stopping):
            agent.snapshot_wanted.clear()
            self._snapshot_at = self._context.monotonic() + self._context.snapshot_seconds
        if stopping:
            self._writer.finish()
            raise StopRequested

    def _snapshot_written(self, snapshot: Snapshot) -> None:
        if not snapshot.record.finished:
            self._context.agent.send(SnapshotTaken(round=snapshot.record.round, step=snapshot.record.step))

    def _begin(self, training: LocalTraining, sums: RoundSums, *, copied: bool) -> bool:
        """Have a snapshot written beside what goes on; whether the one before was ready."""
        record = self.record.model_copy(
            update={
                "step": sums.steps,
                "tokens": sums.num_tokens,
                "loss_sum_fixed": sums.loss_sum_fixed,
                "deviations": tuple(sorted(self.deviations)),
                "micro_batch": training.micro_batch if training.micro_batch < self._wanted else None,
            }
        )
        state = State(training.weights(), training.moments())
        if self._ranks.sharding != "pipeline":  # there it is what this rank has
            state = state.part(self._ranks.rank, self._ranks.size)
        return self._writer.begin(record, state, copied=copied)

    def _fresh_record(self) -> Record:
        job, machine, request = self._context.job, self._context.machine, self._request
        return Record(
            run=job.statement.run,
            round=request.round,
            seed=request.seed,
            base=_checked_base(request, job),
            step=0,
            steps=job.statement.plan.local.steps if request.steps is None else request.steps,
            tokens=0,
            loss_sum_fixed=0,
            evaluation=LossSums(0, 0),
            device=machine.name,
            threads=machine.threads,
            capability=machine.capability,
            versions=machine.versions,
            ranks=self._ranks.size,
            sharding=None if self._ranks.sharding == "none" else self._ranks.sharding,
        )


def _rest(context: RoundContext) -> None:
    """Free the device's memory between rounds; a sharded model stays where it is shared out."""
    if not context.ranks.sharded:
        context.job.model.to("cpu")


def _read_model(request: Train | Evaluate, job: Job) -> tuple[str, ...]:
    """The base model and the institution's own personal layers, into the job's model; deviations."""
    read_tensors(job.model, job.path(request.base), job.statement.manifest)
    return () if job.personal.read(job.model, request.personal) else (PERSONAL_LOST,)


@dataclass(frozen=True, slots=True)
class _Measured:
    """A base model's held-out loss, and the micro-batch with which it was measured."""

    sums: LossSums
    deviations: tuple[str, ...]
    micro_batch: int


def _measure_base(request: Train | Evaluate, context: RoundContext) -> _Measured:
    """Read the model that the round starts from, and measure it."""
    job, machine = context.job, context.machine
    context.agent.send(Progress(round=request.round, activity="evaluating"))
    if not context.ranks.sharded:
        job.model.to(context.machine.device)
    deviations = _read_model(request, job)

    def measured(size: int) -> tuple[float, int]:
        rows = _until_stopped(job.corpus.held_out_rows(), context.agent)
        objective = objective_of(job.statement.plan.task)
        objective = pipeline_of(job.model, objective, context.ranks) or objective
        return measure(job.model, objective, rows, batch_size=size, ranks=context.ranks)

    (nats, targets), size = context.ranks.within_memory(
        measured, _first_micro_batch(request, job), machine.release_memory
    )
    smaller = (SMALLER_MICRO_BATCH,) if size < _wanted_micro_batch(job) else ()
    total_nats, total_targets = context.ranks.total(nats, targets)
    sums = loss_sums(total_nats, int(total_targets))
    return _Measured(sums, (*deviations, *smaller), size)


def _wanted_micro_batch(job: Job) -> int:
    """As the plan says."""
    local = job.statement.plan.local
    return local.micro_batch_size or local.batch_size


def _first_micro_batch(request: Train | Evaluate, job: Job) -> int:
    """The plan's, and no larger than the agent wants it."""
    wanted = _wanted_micro_batch(job)
    return min(wanted, request.micro_batch or wanted)


def _until_stopped(rows: Iterator[Batch], agent: AgentSide) -> Iterator[Batch]:
    """The rows, one by one, as long as the agent does not want the worker to end."""
    for row in rows:
        if agent.stop_wanted.is_set():
            raise StopRequested
        yield row


def _progress(round_number: int, boundary: StepDone) -> Progress:
    return Progress(
        round=round_number,
        activity="training",
        steps_done=boundary.step,
        steps_total=boundary.steps,
        tokens_done=boundary.sums.num_tokens,
        loss_fixed=boundary.loss_fixed,
    )


def _to_message(sums: LossSums) -> EvaluationSums:
    return EvaluationSums(loss_sum_fixed=sums.loss_sum_fixed, num_tokens=sums.num_tokens)


def _checked_base(request: Train | Evaluate, job: Job) -> str:
    """The root of the base model's file.

    Raises:
        CorruptChunk: it is not the model that the agent named.
        StorageFailure: it cannot be read.
    """
    path, expected = job.path(request.base), request.base_ref
    with open_as_blob(path, "blake3" if expected is None else expected.algorithm) as reader:
        found = reader.ref
    if expected not in (None, found):
        raise CorruptChunk(f"The base model {path} is {found}, expected {expected}: it was damaged on disk.")
    return found.root
