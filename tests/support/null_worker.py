"""A worker that trains nothing: it speaks bench/worker_protocol.py and writes a delta in the right layout, without torch.

    worker: {command: [python, -P, tests/support/null_worker.py]}        in participant.yaml

Its delta is a function of the institution's text, the round and the base model's bytes, made by integer arithmetic: the same
run gives the same model on any machine, however often somebody was killed on the way. Files in the first data folder steer it:

    hold        while it exists, a training round waits; jobs/RUN/holding then holds this process's id
    fail        holds a code of docs/errors.md: every message but stop is answered with that error
    seconds     holds how long a training round takes
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.statements.kinds import PlanStatement, Tensor
from common.tensors import trainable_elements, trainable_header
from participant.bench.worker_protocol import (
    Evaluate,
    EvaluationSums,
    Hello,
    Prepare,
    Prepared,
    Progress,
    Result,
    Stop,
    Train,
    WorkerError,
)
from participant.worker.agent_side import AgentSide
from participant.worker.isolation import watch_lifeline

COMMAND = (sys.executable, "-P", str(Path(__file__).resolve()))
BLOCK_ELEMENTS = 1 << 20
HELD_OUT_TOKENS = 100
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Job:
    """What the messages of a run share."""

    folder: Path
    data: Path
    statement: PlanStatement
    text: bytes
    """SHA-256 of the institution's text."""


def text_digest(data: Path) -> bytes:
    """SHA-256 over a folder's text files, in order of their paths."""
    text = hashlib.sha256()
    for path in sorted(data.rglob("*.txt")):
        text.update(path.read_bytes())
    return text.digest()


def seed_of(text: bytes, round_number: int, base: Path) -> int:
    """32 bits from what a round starts from."""
    with base.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").digest()
    return int.from_bytes(hashlib.sha256(text + round_number.to_bytes(8, "big") + model).digest()[:4], "big")


def values(seed: int, first: int, count: int) -> np.ndarray:
    """`count` numbers of a delta from element `first` on: float32 in [-1/32, 1/32), exact multiples of 2^-20."""
    index = np.arange(first, first + count, dtype=np.uint64)
    mixed = (index * np.uint64(2654435761) + np.uint64(seed)) & np.uint64(0xFFFFFFFF)
    return ((mixed >> np.uint64(16)).astype(np.int32) - 32768).astype("<f4") / np.float32(2**20)


def write_delta(path: Path, manifest: Sequence[Tensor], seed: int) -> None:
    """The delta of that seed, under a temporary name first."""
    temporary = path.with_suffix(".writing")
    elements = trainable_elements(manifest)
    with temporary.open("wb") as file:
        file.write(trainable_header(manifest))
        for first in range(0, elements, BLOCK_ELEMENTS):
            file.write(values(seed, first, min(BLOCK_ELEMENTS, elements - first)).tobytes())
    temporary.replace(path)


def num_tokens_of(statement: PlanStatement, text: bytes) -> int:
    """A weight within what the plan allows, another for each text."""
    return 1 + int.from_bytes(text[:4], "big") % statement.plan.local.tokens_per_round


class NullWorker:
    """Answers message after message."""

    def __init__(self, agent: AgentSide, threads: int) -> None:
        self._agent = agent
        self._threads = threads
        self._job: Job | None = None

    def run(self) -> None:
        hello = Hello(
            pid=os.getpid(), device="cpu", threads=self._threads, capability="none", versions={}, isolated=False
        )
        self._agent.send(hello)
        while not isinstance(message := self._agent.receive(), Stop):
            match message:
                case Prepare():
                    self._prepare(message)
                case Train():
                    self._train(message)
                case Evaluate():
                    self._agent.send(
                        Result(round=message.round, task="evaluate", evaluation=self._evaluation(message.round))
                    )

    def _prepare(self, message: Prepare) -> None:
        folder, data = Path(message.job), Path(message.data[0].folder)
        statement = PlanStatement.model_validate_json((folder / "plan.json").read_bytes())
        self._job = Job(folder, data, statement, text_digest(data))
        if not self._failed(data):
            self._agent.send(Prepared(documents=1, train_tokens=1000, held_out_documents=1, held_out_tokens=100))

    def _train(self, message: Train) -> None:
        job = self._job
        if job is None:
            self._agent.send(WorkerError(code="worker-failed", message="The worker has prepared no job."))
            return
        if self._failed(job.data) or not self._wait(job, message.round):
            return
        base = job.folder / message.base
        write_delta(job.folder / message.delta, job.statement.manifest, seed_of(job.text, message.round, base))
        steps, tokens = job.statement.plan.local.steps, num_tokens_of(job.statement, job.text)
        self._agent.send(self._progress(message.round, steps, tokens))
        self._agent.send(
            Result(
                round=message.round,
                task="train",
                evaluation=self._evaluation(message.round),
                delta=message.delta,
                num_tokens=tokens,
                train_loss_fixed=5 * 2**16,
            )
        )

    def _wait(self, job: Job, round_number: int) -> bool:
        """Whether to go on: false when the agent wants this process to end."""
        holding, pause = job.folder / "holding", threading.Event()
        while (job.data / "hold").exists():
            holding.write_text(str(os.getpid()))
            self._agent.send(self._progress(round_number, 0, 0))
            if self._agent.stop_wanted.is_set() or pause.wait(_POLL_SECONDS):
                return False
        holding.unlink(missing_ok=True)
        lasting = job.data / "seconds"
        if lasting.exists():
            self._agent.stop_wanted.wait(float(lasting.read_text()))
        return not self._agent.stop_wanted.is_set()

    def _progress(self, round_number: int, steps: int, tokens: int) -> Progress:
        total = self._job.statement.plan.local.steps if self._job else 0
        return Progress(
            round=round_number, activity="training", steps_done=steps, steps_total=total, tokens_done=tokens
        )

    def _evaluation(self, round_number: int) -> EvaluationSums:
        return EvaluationSums(loss_sum_fixed=HELD_OUT_TOKENS * 2**16 * 6 // round_number, num_tokens=HELD_OUT_TOKENS)

    def _failed(self, data: Path) -> bool:
        if not (data / "fail").exists():
            return False
        self._agent.send(WorkerError(code=(data / "fail").read_text().strip(), message="It fails as asked."))
        return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments, _ = parser.parse_known_args()
    watch_lifeline(arguments.lifeline_fd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(arguments.socket)
        NullWorker(AgentSide(connection), arguments.threads).run()


if __name__ == "__main__":
    main()
