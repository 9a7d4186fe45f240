"""The agent: follows the ledger, answers plans, works on rounds. One loop, and it starts the same after any crash.

What it knows comes from its own verified copy of the ledger (participant.mirror); what it signed is in its journal before it
is sent. Keys and network are here, data and torch in the worker.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import Clock
from common.errors import BlobError, CoordinatorUnreachable, LLMasOSError, RefusalError, TooManyRequests
from common.ledger.cohort import local_seed
from common.ledger.state import RoundRecord, RunRecord
from common.logs import get_logger
from common.wire.session import Session
from common.wire.transfer import TransferOptions
from participant.follower import Follower
from participant.mirror import Mirror
from participant.policy import Finding, Policy, judge
from participant.reporter import RoundReporter
from participant.sending import Outbox
from participant.tasks import AnswerPlan, Task, answer_slot, contribution_slot, next_task
from participant.workbench import BASE, DELTA, RoundOver, Workbench
from participant.worker_protocol import Evaluate, Progress, Result, Train

log = get_logger(__name__)

IDLE_SECONDS = 1.0
SEEN_SECONDS = 10.0
MAX_ATTEMPTS = 3
DATA_CODES = frozenset({"too-little-data", "unreadable-data", "missing-extra", "worker-failed"})


class StatusBoard(Protocol):
    """Told what the agent does, for `participant status`."""

    def doing(self, activity: str, **fields: str | int) -> None: ...

    def worker(self, **fields: str | int | bool) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentPorts:
    """Everything the agent uses."""

    institution: str
    session: Session
    mirror: Mirror
    follower: Follower
    outbox: Outbox
    workbench: Workbench
    blobs: FolderBlobStore
    policy: Callable[[], Policy]
    status: StatusBoard
    clock: Clock


class Agent:
    """`run` until its event is set."""

    def __init__(self, ports: AgentPorts) -> None:
        self._ports = ports
        self._mirror = ports.mirror
        self._given_up: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._stopping = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Answer plans and work on rounds as the ledger brings them.

        Raises:
            LLMasOSError: the ledger conflicts with what was seen, or this institution's certificate is refused for good.
        """
        self._stopping = stopping
        for damaged in self._ports.blobs.discard_damaged():
            log.warning("blob damaged on disk", extra={"root": damaged.root})
        while not stopping.is_set():
            if self._ports.follower.failure is not None:
                raise self._ports.follower.failure
            state = self._mirror.state
            task = next_task(state, self._ports.institution, self._given_up.__contains__)
            if task is None:
                self._ports.status.doing("waiting for a plan or a round")
                self._tidy()
                self._mirror.wait_beyond(state.size, IDLE_SECONDS)
            else:
                self._attempt(task)

    def _attempt(self, task: Task) -> None:
        """Do one task; what cannot be done is given up by name, what may go better later is tried again."""
        slot = answer_slot(task.run) if isinstance(task, AnswerPlan) else contribution_slot(task.record)
        try:
            if isinstance(task, AnswerPlan):
                self.answer(task.run)
            else:
                self.work(task.run, task.record)
        except RoundOver:
            if not self._stopping.is_set():
                log.info("round went on without us", extra={"run": task.run.run, "slot": slot})
                self._given_up.add(slot)
        except (CoordinatorUnreachable, TooManyRequests) as err:
            log.warning("coordinator unreachable or busy", extra={"code": err.code, "error": err.message})
            self._stopping.wait(IDLE_SECONDS)
        except LLMasOSError as err:
            # Bytes that broke or got lost on the way may arrive the next time; what was refused is refused.
            final = isinstance(err, RefusalError) and not isinstance(err, BlobError)
            self._attempts[slot] += 1
            event = "refused" if final else "task failed"
            log.error(event, extra={"slot": slot, "code": err.code, "error": err.message, "fix": err.fix})
            if final or self._attempts[slot] >= MAX_ATTEMPTS:
                self._given_up.add(slot)
            else:
                self._stopping.wait(IDLE_SECONDS)

    # --- plans -------------------------------------------------------------------------------------------------------

    def answer(self, run: RunRecord) -> None:
        """Answer a plan by policy, and by whether this institution's data is enough (docs/protocol.md#answers)."""
        self._ports.status.doing("answering a plan", run=run.run)
        signed = self._ports.outbox.answered(run)
        if signed is None:
            findings = judge(self._ports.policy(), run.statement)
            reasons = [finding.code for finding in findings] or self._data_reasons(run)
            _log_answer(run, findings, reasons)
            signed = self._ports.outbox.sign_answer(run, accept=not reasons, reasons=tuple(sorted(set(reasons))))
        index = self._ports.outbox.send_answer(run, signed)
        self._mirror.wait_beyond(index, SEEN_SECONDS)

    def _data_reasons(self, run: RunRecord) -> list[str]:
        """Why the data here does not do for this plan, as codes."""
        self._ports.status.doing("preparing data", run=run.run)
        try:
            self._prepare(run, self._stopping)
        except LLMasOSError as err:
            if err.code not in DATA_CODES:
                raise
            log.error(
                "data does not do", extra={"run": run.run, "code": err.code, "error": err.message, "fix": err.fix}
            )
            return [err.code]
        return []

    def _prepare(self, run: RunRecord, over: threading.Event) -> None:
        tokenizer = self._fetch(run.statement.initial.tokenizer, TransferOptions(stop=over))
        self._ports.workbench.prepare(run, tokenizer, over)
        hello = self._ports.workbench.hello
        if hello is not None:
            self._ports.status.worker(
                device=hello.device, threads=hello.threads, capability=hello.capability, isolated=hello.isolated
            )

    # --- rounds ------------------------------------------------------------------------------------------------------

    def work(self, run: RunRecord, record: RoundRecord) -> None:
        """One round at this institution, docs/protocol.md#round: fetch, measure, train, sign, send."""
        shows_loss = run.statement.plan.metrics_visibility == "institution"
        with RoundReporter(self._ports.session, run.run, record.number, shows_loss=shows_loss) as reporter:
            watch = threading.Thread(target=self._watch_round, args=(record, reporter), name="round-watch", daemon=True)
            watch.start()
            try:
                signed = self._ports.outbox.contributed(record)
                if signed is None:
                    result = self._compute(run, record, reporter)
                    reporter.activity("sending")
                    signed = self._ports.outbox.sign_contribution(run, record, result, self._delta_file(run, result))
                reporter.activity("sending")
                self._ports.status.doing("sending", run=run.run, round=record.number)
                index = self._ports.outbox.send_contribution(record, signed, reporter)
            finally:
                reporter.cancel()
                self._mirror.wake()
                watch.join()
        self._mirror.wait_beyond(index, SEEN_SECONDS)

    def _compute(self, run: RunRecord, record: RoundRecord, reporter: RoundReporter) -> Result:
        """The round's own work: base model, measurement, training."""
        status, bench = self._ports.status, self._ports.workbench
        status.doing("fetching the model", run=run.run, round=record.number)
        reporter.activity("fetching")
        model = self._fetch_base(run, record, reporter)
        self._tidy()
        reporter.activity("preparing")
        self._prepare(run, reporter.over)
        bench.place_base(run.run, model)
        status.doing(f"{record.opened.task} round", run=run.run, round=record.number)

        def on_progress(progress: Progress) -> None:
            reporter.progress(
                progress.activity, progress.steps_done, progress.steps_total, progress.tokens_done, progress.loss_fixed
            )

        if record.opened.task == "evaluate":
            return bench.evaluate(Evaluate(round=record.number, base=BASE), reporter.over, on_progress)
        message = Train(
            round=record.number,
            trained_rounds=len(run.committed()),
            seed=local_seed(record.opened.seed, self._ports.institution),
            base=BASE,
            delta=DELTA,
            resume=True,
        )
        return bench.train(message, reporter.over, on_progress)

    def _delta_file(self, run: RunRecord, result: Result) -> Path | None:
        return self._ports.workbench.job(run.run) / DELTA if result.delta is not None else None

    def _fetch_base(self, run: RunRecord, record: RoundRecord, reporter: RoundReporter) -> Path:
        """The round's base model, in the place of the last round's."""
        self._ports.workbench.remove_base(run.run)
        earlier = [before.opened.inputs.model for before in run.rounds if before.number < record.number]
        options = TransferOptions(
            on_bytes=reporter.fetched,
            stop=reporter.over,
            durable=False,  # what a power failure damages is found at the next start and fetched again
            instead_of=earlier[-1] if earlier else None,
        )
        return self._fetch(record.opened.inputs.model, options)

    def _fetch(self, ref: BlobRef, options: TransferOptions) -> Path:
        """A blob's file, downloaded where it is not here yet."""
        blobs = self._ports.blobs
        if not blobs.contains(ref) and not self._ports.session.download(ref, blobs, self._ports.institution, options):
            raise RoundOver
        return blobs.path(ref)

    def _watch_round(self, record: RoundRecord, reporter: RoundReporter) -> None:
        """End the round's work when the ledger closes it, or when this process is to stop."""
        size = 0
        while not reporter.over.is_set():
            state = self._mirror.wait_beyond(size, 0.5)
            size = state.size
            found = state.round_by_opening(record.place.digest)
            if self._stopping.is_set() or (found is not None and found[1].closed is not None):
                reporter.cancel()

    def _tidy(self) -> None:
        """Delete what no open run needs: old models, deltas whose rounds are closed, job folders with token files."""
        keep: set[str] = set()
        for run in self._mirror.state.active_runs:
            keep |= {run.model.root, run.statement.initial.tokenizer.root}
            keep |= {record.opened.inputs.model.root for record in run.rounds[-2:]}  # the next one is written over it
            if run.open_round is not None:
                keep |= self._ports.outbox.blobs_of(run.open_round)
        for ref, _ in self._ports.blobs.list():
            if ref.root not in keep:
                self._ports.blobs.delete(ref)
        active = {run.run for run in self._mirror.state.active_runs}
        self._ports.workbench.forget_runs(known=self._mirror.state.runs.keys(), keep=active)


def _log_answer(run: RunRecord, findings: tuple[Finding, ...], reasons: list[str]) -> None:
    for finding in findings:
        log.info(
            "policy refuses",
            extra={"run": run.run, "rule": finding.rule, "wanted": finding.wanted, "got": finding.got},
        )
    log.info("plan answered", extra={"run": run.run, "accept": not reasons, "reasons": reasons})
