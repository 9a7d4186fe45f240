"""A worker that trains nothing: the words of participant/bench/worker_protocol.py, and a delta in the right layout at once.

The delta is zeros but for one element in each MiB that differs between institutions and rounds, so that every chunk of every
delta, and of every new model, is another one and travels, while the time to make it hardly counts. Its values are small and
finite; a reducer takes as long for them as for others.

    worker: {command: [python, benchmarks/null_worker.py]}      in participant.yaml
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import struct
import sys
import threading
from pathlib import Path

from common.statements.kinds import PlanStatement
from common.tensors import delta_size, trainable_header
from participant.bench.worker_protocol import (
    LOSS_SCALE,
    TO_WORKER,
    Evaluate,
    EvaluationSums,
    Hello,
    Message,
    Prepare,
    Prepared,
    Progress,
    Result,
    Snapshot,
    SnapshotTaken,
    Stop,
    Train,
    encode,
)

MARK_EVERY_BYTES = 1024 * 1024
EVALUATION = EvaluationSums(loss_sum_fixed=LOSS_SCALE * 100, num_tokens=100)


class NullWorker:
    """Answers every message at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._job = Path()
        self._plan: PlanStatement | None = None

    def run(self) -> None:
        """Until the agent says stop or hangs up."""
        versions = {"python": platform.python_version()}
        self._send(
            Hello(pid=os.getpid(), device="none", threads=1, capability="DEFAULT", versions=versions, isolated=False)
        )
        with self._connection.makefile("rb") as lines:
            for line in lines:
                message = TO_WORKER.validate_json(line)
                match message:
                    case Prepare():
                        self._prepare(message)
                    case Train():
                        self._train(message)
                    case Evaluate():
                        self._send(Result(round=message.round, task="evaluate", evaluation=EVALUATION))
                    case Snapshot():
                        self._send(SnapshotTaken(round=0, step=0))
                    case Stop():
                        return

    def _prepare(self, message: Prepare) -> None:
        self._job = Path(message.job)
        self._plan = PlanStatement.model_validate(json.loads((self._job / "plan.json").read_bytes()))
        self._send(Prepared(documents=2, train_tokens=1000, held_out_documents=1, held_out_tokens=100))

    def _train(self, message: Train) -> None:
        if self._plan is None:
            raise RuntimeError("train before prepare")
        steps = self._plan.plan.local.steps
        self._send(Progress(round=message.round, activity="training", steps_done=steps, steps_total=steps))
        spare = self._job / message.spare if message.spare is not None else None
        write_delta(self._job / message.delta, self._plan, mark=message.seed, spare=spare)
        self._send(
            Result(
                round=message.round,
                task="train",
                evaluation=EVALUATION,
                delta=message.delta,
                num_tokens=self._plan.plan.local.tokens_per_round,
                train_loss_fixed=LOSS_SCALE,
            )
        )

    def _send(self, message: Message) -> None:
        self._connection.sendall(encode(message))


def make_file(path: Path, size: int) -> None:
    """A private file of zeros, its pages in memory as after a training."""
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        zeros = bytes(MARK_EVERY_BYTES)
        for position in range(0, size, MARK_EVERY_BYTES):
            file.write(zeros[: size - position])


def write_delta(path: Path, plan: PlanStatement, *, mark: int, spare: Path | None) -> None:
    """Write the delta under a temporary name and rename it; `mark` decides the elements that are not zero."""
    header = trainable_header(plan.manifest)
    size = delta_size(plan.manifest)
    element = struct.pack("<f", 2.0**-8 * (1 + mark % 2**16 / 2**16))
    partial = path.with_name(f".{path.name}.partial")
    if spare is not None and spare.exists():
        spare.replace(partial)
    else:
        make_file(partial, size)
    with partial.open("r+b") as file:
        file.write(header)
        for position in range(len(header), size, MARK_EVERY_BYTES):
            os.pwrite(file.fileno(), element, position)
        file.truncate(size)
    partial.replace(path)


def end_with_agent(lifeline: int) -> None:
    """The agent holds the pipe's other end; nothing is worth keeping here when it is gone."""
    while os.read(lifeline, 1):
        pass
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    options, _ = parser.parse_known_args()
    threading.Thread(target=end_with_agent, args=(options.lifeline_fd,), daemon=True).start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(options.socket)
        NullWorker(connection).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
