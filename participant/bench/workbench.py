"""The agent's hands on its worker: job folders, the messages of a round, and the worker's life."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from common import strict_json
from common.errors import DeviceFailed
from common.homes import atomic_write, private_folder
from common.ledger.state import RunRecord
from common.logs import get_logger
from common.plan.tasks import TaskSection
from participant.bench.memory_kills import MemoryKills, Work
from participant.bench.worker_link import WorkerLink, WorkerSettings, error_from, worker_ended
from participant.bench.worker_protocol import (
    PERSONAL,
    DataSource,
    Evaluate,
    FromWorker,
    Hello,
    Prepare,
    Prepared,
    Progress,
    Result,
    ToWorker,
    Train,
    WorkerError,
)
from participant.config import HomeLayout, ParticipantConfig
from participant.datasets import DataSet, data_sets, data_sets_for, file_stamps

log = get_logger(__name__)

BASE, DELTA, SPARE = "base.safetensors", "delta.safetensors", "delta.spare"
CONTROL, SERVER_STATE = "control.safetensors", "server-state.safetensors"
WATCH_SECONDS = 0.2
STOP_SECONDS = 6.0
"""For the worker to snapshot and end; then it is made to. With the watches before it, memory is free within ten seconds."""

OnProgress = Callable[[Progress], None]
A = TypeVar("A", Prepared, Result)


class RoundOver(Exception):
    """The round takes no contribution of ours any more: its work here ends. Never leaves the agent."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker ended by itself."""

    code: int


class Workbench:
    """One worker at a time; it is started when first needed and started again after it failed. Used by one thread."""

    def __init__(self, layout: HomeLayout, config: ParticipantConfig, *, jobs: Path | None = None) -> None:
        self._layout = layout
        self._config = config
        self._jobs = jobs or layout.jobs
        self._messages: queue.SimpleQueue[FromWorker | Exited] = queue.SimpleQueue()
        self._link: WorkerLink | None = None
        self._prepared: str | None = None
        self._memory = MemoryKills()
        self._micro_batch = 1
        self._data: tuple[DataSource, ...] = ()
        self._stamps: tuple[object, ...] | None = None
        self._named: tuple[DataSet, ...] = ()
        self._task: TaskSection | None = None
        self.hello: Hello | None = None

    def job(self, run: str) -> Path:
        """The job folder of a run."""
        return self._jobs / run

    def is_ready_for(self, run: str) -> bool:
        """Whether the worker has this institution's data, as it is named now, prepared for that run."""
        alive = self._link is not None and self._link.alive()
        if not alive or self._prepared != run or self._task is None:
            return False
        named = (data for data in self._data_sets() if self._task.takes(data.tasks))
        return self._data == tuple(data.source() for data in named)

    def prepare(self, run: RunRecord, tokenizer: Path, over: threading.Event) -> None:
        """Have the worker read, split and tokenise this institution's data for a run, once for each worker.

        Raises:
            LLMasOSError: too little or unreadable data, or a worker that does not start.
            RoundOver: `over` was set.
        """
        if self.is_ready_for(run.run):
            return
        task = run.statement.plan.task
        sources = tuple(data.source() for data in data_sets_for(task, self._data_sets()))
        job = private_folder(self.job(run.run))
        atomic_write(job / "plan.json", strict_json.dumps(run.statement.model_dump(mode="json")))
        atomic_write(job / "tokenizer.json", tokenizer.read_bytes())
        self._prepared = None
        answer = self._ask(Prepare(job=str(job), data=sources), Prepared, over, lambda progress: None)
        self._prepared, self._data, self._task = run.run, sources, task
        self._micro_batch = run.statement.plan.local.micro_batch_size or run.statement.plan.local.batch_size
        log.info(
            "data prepared",
            extra={
                "run": run.run,
                "documents": answer.documents,
                "train_size": answer.train_tokens,
                "held_out_size": answer.held_out_tokens,
                "shortened": answer.shortened,
                "left_out": answer.left_out,
            },
        )

    def _data_sets(self) -> tuple[DataSet, ...]:
        """What is named now; read again when a file of them was written, removed or added."""
        stamps = file_stamps(self._layout)
        if stamps != self._stamps:
            self._named = data_sets(self._layout)
            self._stamps = stamps
        return self._named

    def place_base(self, run: str, model: Path) -> None:
        """Put a round's base model into the job folder, without a copy where the file system lets it."""
        self.remove_base(run)
        _place(model, self.job(run) / BASE)

    def place_state(self, run: str, state: Path | None) -> None:
        """The server_state that a round starts from, in the place of an earlier round's; None: there is none."""
        target = self.job(run) / SERVER_STATE
        target.unlink(missing_ok=True)
        if state is not None:
            _place(state, target)

    def remove_base(self, run: str) -> None:
        """Take the base model of an earlier round out of the job folder: a second name would keep its file on disk."""
        (self.job(run) / BASE).unlink(missing_ok=True)

    def train(self, message: Train, over: threading.Event, on_progress: OnProgress) -> Result:
        """Evaluate the base model, train a round; the delta lies in the job folder.

        Raises:
            LLMasOSError, RoundOver: as `prepare`.
        """
        return self._work(message, over, on_progress)

    def evaluate(self, message: Evaluate, over: threading.Event, on_progress: OnProgress) -> Result:
        """Evaluate the base model only."""
        return self._work(message, over, on_progress)

    def forget_runs(self, *, known: Collection[str], keep: Collection[str]) -> None:
        """Remove the job folders of runs that ended: they hold copies of private text, as tokens. Personal layers stay."""
        for run in set(known) - set(keep):
            if self.job(run).is_dir():
                if self._prepared == run:
                    self.close()
                if _remove_all_but_personal(self.job(run)):
                    log.info("job folder removed", extra={"run": run})

    def rest(self) -> None:
        """End an idle worker, so that its memory, the GPU's too, is others'."""
        if self._link is not None and self._link.alive():
            self.close()
            log.info("worker rests")

    def close(self) -> None:
        """End the worker; nothing of it is left."""
        link, self._link, self._prepared = self._link, None, None
        if link is not None:
            link.stop(STOP_SECONDS)
        while not self._messages.empty():
            self._messages.get()

    def _work(self, message: Train | Evaluate, over: threading.Event, on_progress: OnProgress) -> Result:
        """With smaller micro-batches where the kernel ended workers for want of memory."""
        run = self._prepared or ""
        message = message.model_copy(update={"micro_batch": self._memory.limit(run)})
        with self._memory.watching(Work(run, message.round, self._micro_batch), on_progress) as watched:
            return self._ask(message, Result, over, watched)

    def _ask(self, message: ToWorker, expected: type[A], over: threading.Event, on_progress: OnProgress) -> A:
        self._started().send(message)
        while True:
            answer = self._next(over)
            if isinstance(answer, expected):
                return answer
            self._handle(answer, on_progress)

    def _handle(self, answer: FromWorker | Exited, on_progress: OnProgress) -> None:
        match answer:
            case Progress():
                on_progress(answer)
            case WorkerError():
                error = error_from(answer)
                if answer.ending or isinstance(error, DeviceFailed):
                    self.close()  # its process computes nothing any more
                raise error
            case Exited(code=code):
                self.close()
                raise worker_ended(code, "in the middle of its work")
            case _:
                log.debug("worker said", extra={"type": answer.type})

    def _next(self, over: threading.Event) -> FromWorker | Exited:
        while True:
            if over.is_set():
                # The worker knows no word for "drop this round"; a new one starts from its snapshot.
                self.close()
                raise RoundOver
            try:
                return self._messages.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                continue

    def _started(self) -> WorkerLink:
        if self._link is not None and self._link.alive():
            return self._link
        self.close()
        worker = self._config.worker
        settings = WorkerSettings(
            job_root=private_folder(self._jobs),
            log_path=self._layout.worker_log,
            threads=worker.threads,
            ranks=worker.ranks,
            sharding=worker.sharding,
            snapshot_seconds=worker.snapshot_seconds,
            worker_user=worker.user,
            isolate_network=worker.isolate_network,
            tensorboard=worker.tensorboard,
        )
        if worker.command is not None:
            settings = replace(settings, command=worker.command)
        link = WorkerLink(
            settings,
            on_message=self._messages.put,
            on_exit=lambda code: self._messages.put(Exited(code)),
        )
        self.hello = link.start()
        self._link = link
        log.info(
            "worker started",
            extra={
                "device": self.hello.device,
                "ranks": self.hello.ranks,
                "threads": self.hello.threads,
                "capability": self.hello.capability,
            },
        )
        return link


def _place(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _remove_all_but_personal(job: Path) -> bool:
    """Whether there was something: personal layers are the institution's own, and no other copy of them exists."""
    others = [path for path in job.iterdir() if path.name != PERSONAL]
    for path in others:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not (job / PERSONAL).exists():
        job.rmdir()
    return bool(others)
