"""What snapshots cost local training: the share of its time that they take with the default `snapshot_seconds`.

    python benchmarks/snapshots.py                          # 70 MB of weights, 210 MB a snapshot, one thread: a minute
    python benchmarks/snapshots.py --n-embd 768 --n-layer 12 --steps 60

One training in this process; every --every steps a snapshot is begun as a worker begins it. Each step is timed, and so is the
step boundary at which training waits for the copy:

    waits       median time of a boundary at which a snapshot is begun
    beside      what the steps beside the writing took longer, in all, by the median of the others, per snapshot
    share       (waits + beside) / snapshot_seconds
    in line     the same where training waits until a snapshot is on disk

Weights are those of a real round; batches are random tokens, which cost the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.plan.model import Plan
from llmasos.evaluation.perplexity import LossSums
from llmasos.models.build import build_model
from llmasos.training.background import BackgroundWriter
from llmasos.training.device import Machine, set_up
from llmasos.training.loop import LocalTraining, RoundWork, StepDone
from llmasos.training.snapshot import Record, Snapshot, SnapshotFolder, State
from participant.config import WorkerSettings

VOCABULARY, MEGABYTE = 8192, 1e6
MOST_SHARE = 0.02


@dataclass
class Measured:
    """Seconds, one entry each."""

    idle_steps: list[float] = field(default_factory=list)
    busy_steps: list[float] = field(default_factory=list)
    boundaries: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)


class Observed:
    """A training whose step boundaries are watched."""

    def __init__(self, training: LocalTraining, folder: Path, machine: Machine, every: int) -> None:
        self._training, self._machine, self._every = training, machine, every
        self._folder = SnapshotFolder(folder)
        self._began = self._step_began = time.perf_counter()
        self._writing = False
        self.measured = Measured()

    def run(self, plan: Plan) -> Measured:
        batches = np.random.default_rng(1)
        shape = (plan.local.batch_size, plan.local.sequence_length + 1)
        with BackgroundWriter(self._folder, self._on_written) as self._writer:
            work = RoundWork(trained_rounds=0, seed=1)
            self._training.run_round(work, lambda step: batches.integers(0, VOCABULARY, shape), self._on_step)
        return self.measured

    def in_line(self) -> float:
        """Seconds until a snapshot of the present state is on disk."""
        began = time.perf_counter()
        self._folder.write(self._record(0), self._state())
        return time.perf_counter() - began

    def _on_step(self, done: StepDone) -> None:
        seconds = time.perf_counter() - self._step_began
        if done.step > 2:  # the first make moments and warm up
            (self.measured.busy_steps if self._writing else self.measured.idle_steps).append(seconds)
        self._writing = self._in_flight
        if done.step % self._every == 0:
            self._began = time.perf_counter()
            self._in_flight = self._writer.begin(self._record(done.step), self._state(), copied=True)
            self.measured.boundaries.append(time.perf_counter() - self._began)
            self._writing = True
        self._step_began = time.perf_counter()

    _in_flight = False

    def _on_written(self, written: Snapshot) -> None:
        self.measured.written.append(time.perf_counter() - self._began)
        self._in_flight = False

    def _state(self) -> State:
        return State(self._training.weights(), self._training.moments())

    def _record(self, step: int) -> Record:
        machine = self._machine
        return Record(
            run="benchmark", round=1, seed=1, base="", step=step, steps=10**6, tokens=0, loss_sum_fixed=0,
            evaluation=LossSums(0, 0), device=machine.name, threads=machine.threads, capability=machine.capability,
            versions=machine.versions,
        )  # fmt: skip


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One training."""
    plan = Plan.model_validate(
        {
            "apiVersion": "llmasos/v1",
            "name": "snapshots",
            "model": {
                "type": "gpt2",
                "n_layer": arguments.n_layer,
                "n_head": 8,
                "n_embd": arguments.n_embd,
                "n_positions": arguments.sequence_length,
            },
            "local": {
                "steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "sequence_length": arguments.sequence_length,
            },
        }
    )
    machine = set_up(arguments.threads)
    training = LocalTraining(plan, build_model(plan.model, adapter=None, vocab_size=VOCABULARY, seed=1), machine)
    with tempfile.TemporaryDirectory(prefix="snapshots-", dir=arguments.folder) as folder:
        observed = Observed(training, Path(folder), machine, arguments.every)
        measured, in_line = observed.run(plan), observed.in_line()
    idle, snapshots = statistics.median(measured.idle_steps), len(measured.written)
    waits = statistics.median(measured.boundaries)
    beside = max(0.0, sum(measured.busy_steps) - idle * len(measured.busy_steps)) / snapshots
    every = WorkerSettings().snapshot_seconds
    return {
        "device": machine.name,
        "snapshot_mb": sum(value.nbytes for value in (*training.weights().values(), *training.moments().values()))
        / MEGABYTE,
        "snapshots": snapshots,
        "step_seconds": idle,
        "step_seconds_beside_writing": statistics.median(measured.busy_steps),
        "written_seconds": statistics.median(measured.written),
        "waits_seconds": waits,
        "beside_seconds": beside,
        "snapshot_seconds": every,
        "share": (waits + beside) / every,
        "share_in_line": in_line / every,
        "met": (waits + beside) / every < MOST_SHARE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-embd", type=int, default=384)
    parser.add_argument("--n-layer", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=42)
    parser.add_argument("--every", type=int, default=8, help="steps between two snapshots")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where snapshots go for the time of the run")
    parser.add_argument("--json", action="store_true")
    result = measure(parser.parse_args())
    if "--json" in sys.argv:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"{result['device']}: {result['snapshots']} snapshots of {result['snapshot_mb']:.0f} MB, "
            f"each written in {result['written_seconds']:.2f} s\n"
            f"a step takes {result['step_seconds']:.3f} s, beside the writing "
            f"{result['step_seconds_beside_writing']:.3f} s\n"
            f"a snapshot costs {result['waits_seconds']:.3f} s of waiting and {result['beside_seconds']:.3f} s beside: "
            f"{result['share']:.3%} of training with one each {result['snapshot_seconds']:.0f} s "
            f"(in line {result['share_in_line']:.3%}); below {MOST_SHARE:.0%}: "
            f"{'met' if result['met'] else 'NOT MET'}"
        )
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
