"""One message of the agent at a time, until it says stop."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import DeviceFailed, LLMasOSError, WorkerFailed
from llmasos.models.sharding import Sharding, shard
from llmasos.training.device import Machine, set_up
from llmasos.training.memory import as_known
from llmasos.training.ranks import ALONE, Ranks
from participant.bench.worker_protocol import (
    Evaluate,
    Hello,
    Inspect,
    Message,
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
from participant.worker.job import Job, check_sharding, prepare_job
from participant.worker.peers import Peers
from participant.worker.rounds import RoundContext, evaluate_round, train_round

log = logging.getLogger(__name__)

BROKEN_EXIT = 74
"""Exit code of a worker whose device failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a worker process is to run. `store`: where it meets the other ranks; None: there are none."""

    threads: int
    snapshot_seconds: float
    agent_uid: int
    rank: int = 0
    ranks: int = 1
    sharding: Sharding = "none"
    store: Path | None = None
    tensorboard: Path | None = None


@dataclass(slots=True)
class Session:
    """The worker between hello and stop. It holds at most one job. Rank 0 of several has `peers`, the others."""

    agent: AgentSide
    machine: Machine
    snapshot_seconds: float
    isolated: bool
    job: Job | None = None
    broken: bool = False
    """The device failed, whose context in this process computes no more, or ranks are out of step."""
    ranks: Ranks = ALONE
    peers: Peers | None = None
    tensorboard: Path | None = None

    @classmethod
    def start(cls, agent: AgentSide, settings: Settings, peers: Peers | None = None) -> Session:
        """Set the process up for training, together with the other ranks if there are any.

        Raises:
            InvalidConfiguration: more ranks than CUDA devices.
            LLMasOSError: another rank could not start.
        """
        ranks = ALONE
        if settings.store is not None:
            ranks = Ranks.join(settings.rank, settings.ranks, settings.store, sharding=settings.sharding)
        machine = set_up(settings.threads)
        if peers is not None:
            peers.settle()
        isolated = is_isolated(settings.agent_uid)
        folder = settings.tensorboard
        return cls(agent, machine, settings.snapshot_seconds, isolated, ranks=ranks, peers=peers, tensorboard=folder)

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
            ranks=self.ranks.size,
        )

    def _serve(self, message: ToWorker) -> None:
        """Answer one message; a failure is an answer, too."""
        try:
            answer = self._answer(message)
            if self.peers is not None:
                self.peers.settle()
            if answer is not None:
                self.agent.send(answer)
        except LLMasOSError as err:
            log.warning("refused or failed", exc_info=True)
            self._fail(err)
        except Exception as err:  # the process's edge: what a library says may quote private text
            log.exception("failed")
            error = as_known(err, f"at {message.type}") or WorkerFailed(
                f"The worker failed at {message.type} with {type(err).__name__}; its log holds the details."
            )
            self._fail(error)
        if not self.broken:
            self._release_memory()

    def _fail(self, error: LLMasOSError) -> None:
        """Where ranks are in the middle of something that this one left, nothing brings them together again."""
        out_of_step = self.peers is not None and not self.peers.settle_after_failure()
        self.broken = isinstance(error, DeviceFailed) or out_of_step
        self.agent.send(WorkerError(code=error.code, message=error.message, fix=error.fix, ending=self.broken))

    def _release_memory(self) -> None:
        """A device that fails at this fails at the next message, too, and is told then."""
        try:
            self.machine.release_memory()
        except RuntimeError:
            log.exception("memory not released")

    def _answer(self, message: ToWorker) -> Message | None:
        if isinstance(message, Prepare):
            self.agent.send(Progress(round=0, activity="preparing"))
            return self._prepare(message)
        if isinstance(message, Inspect):
            return inspect_data(message)
        if isinstance(message, Train | Evaluate):
            context = self._context()
            if self.peers is not None:
                self.peers.send(message)
            return train_round(message, context) if isinstance(message, Train) else evaluate_round(message, context)
        return None

    def _prepare(self, message: Prepare) -> Prepared:
        if self.job is not None:
            self.job.close()
            self.job = None
        self.job = prepare_job(message)
        if self.ranks.sharded:
            check_sharding(self.job, self.ranks)
        if self.peers is not None:
            self.peers.send(message.model_copy(update={"tokens": self.job.corpus.folder.name}))
        if self.ranks.sharded:
            shard(self.job.model, self.machine.kind, self.ranks.sharding)
        return Prepared(**self.job.corpus.facts.model_dump(exclude={"parts"}))

    def _context(self) -> RoundContext:
        if self.job is None:
            raise WorkerFailed("The worker has prepared no job.", "Send `prepare` first.")
        return RoundContext(
            self.job,
            self.machine,
            self.agent,
            self.snapshot_seconds,
            time.monotonic,
            ranks=self.ranks,
            tensorboard=self.tensorboard,
        )
