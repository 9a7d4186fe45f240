"""One message of the agent at a time, until it says stop."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import DeviceFailed, LLMasOSError, WorkerFailed
from llmasos.training.device import Machine, set_up
from llmasos.training.memory import as_known
from participant.bench.worker_protocol import (
    Evaluate,
    Hello,
    Inspect,
    Prepare,
    Prepared,
    Progress,
    Stop,
    ToWorker,
    Train,
    WorkerError,
)
from participant.worker.agent_side import AgentSide, StopRequested
from participant.worker.inspection import inspect_data
from participant.worker.isolation import is_isolated
from participant.worker.job import Job, prepare_job
from participant.worker.rounds import RoundContext, evaluate_round, train_round

log = logging.getLogger(__name__)

BROKEN_EXIT = 74
"""Exit code of a worker whose device failed."""


@dataclass(slots=True)
class Session:
    """The worker between hello and stop. It holds at most one job."""

    agent: AgentSide
    machine: Machine
    snapshot_seconds: float
    isolated: bool
    job: Job | None = None
    broken: bool = False
    """The device failed: its context in this process computes no more."""
    tensorboard: Path | None = None

    @classmethod
    def start(
        cls, agent: AgentSide, *, threads: int, snapshot_seconds: float, agent_uid: int, tensorboard: Path | None = None
    ) -> Session:
        """Set the process up for training."""
        return cls(agent, set_up(threads), snapshot_seconds, is_isolated(agent_uid), tensorboard=tensorboard)

    def run(self) -> int:
        """Serve until the agent says stop; the process's exit code."""
        self.agent.send(self._hello())
        while not self.broken and not isinstance(message := self.agent.receive(), Stop):
            try:
                self._serve(message)
            except StopRequested:
                break
        if self.job is not None:
            self.job.close()
        return BROKEN_EXIT if self.broken else 0

    def _hello(self) -> Hello:
        return Hello(
            pid=os.getpid(),
            device=self.machine.name,
            threads=self.machine.threads,
            capability=self.machine.capability,
            versions=self.machine.versions,
            isolated=self.isolated,
        )

    def _serve(self, message: ToWorker) -> None:
        """Answer one message; a failure is an answer, too."""
        try:
            self._answer(message)
        except LLMasOSError as err:
            log.warning("refused or failed", exc_info=True)
            self.agent.send(WorkerError(code=err.code, message=err.message, fix=err.fix))
        except Exception as err:  # the process's edge: what a library says may quote private text
            log.exception("failed")
            error = as_known(err, f"at {message.type}") or WorkerFailed(
                f"The worker failed at {message.type} with {type(err).__name__}; its log holds the details."
            )
            self.broken = isinstance(error, DeviceFailed)
            self.agent.send(WorkerError(code=error.code, message=error.message, fix=error.fix))
        if not self.broken:
            self._release_memory()

    def _release_memory(self) -> None:
        """A device that fails at this fails at the next message, too, and is told then."""
        try:
            self.machine.release_memory()
        except RuntimeError:
            log.exception("memory not released")

    def _answer(self, message: ToWorker) -> None:
        if isinstance(message, Prepare):
            self.agent.send(Progress(round=0, activity="preparing"))
            self.agent.send(self._prepare(message))
        elif isinstance(message, Inspect):
            self.agent.send(inspect_data(message))
        elif isinstance(message, Train):
            self.agent.send(train_round(message, self._context()))
        elif isinstance(message, Evaluate):
            self.agent.send(evaluate_round(message, self._context()))

    def _prepare(self, message: Prepare) -> Prepared:
        if self.job is not None:
            self.job.close()
            self.job = None
        self.job = prepare_job(message)
        return Prepared(**self.job.corpus.facts.model_dump(exclude={"parts"}))

    def _context(self) -> RoundContext:
        if self.job is None:
            raise WorkerFailed("The worker has prepared no job.", "Send `prepare` first.")
        return RoundContext(self.job, self.machine, self.agent, self.snapshot_seconds, time.monotonic, self.tensorboard)
