"""Virtual institutions on this machine: seconds a round, memory, and which share of the processor's time is training.

    python benchmarks/scale.py                                  10, 100 and 1000 institutions, a model of 1 M parameters
    python benchmarks/scale.py --quick --json -                 small ones, to see that it works

    ours, flower engine     `simulate --engine flower`: Ray, exact reducer, deltas in files
    ours, processes         a coordinator and a participant each, everything signed; at most --processes of them
    flower fedavg           Flower's own FedAvg on the same engine with the very same training (scale_fedavg.py)

A round's time is the median of the training rounds after the first, which loads torch and encodes text. `memory` is the
highest sum of proportional set sizes over all processes (shared memory counts once). `training` is the time of optimizer
steps over that of all cores in the same rounds. Apple's pfl is not measured: it installs beside Python 3.11 and 3.12 only,
with other pins than ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from measuring import machine, output

from common.errors import LLMasOSError, OperationError
from llmasos.extras import FLOWER_QUIET, require_flower, require_train
from llmasos.flower.job import EngineJob, Resources, VirtualInstitution
from llmasos.preparation import prepare
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.watch import parse_view

HERE = Path(__file__).parent
MEGABYTE = 1_000_000
SAMPLE_SECONDS = 1.0
LARGE = {
    "model": {"type": "gpt2", "n_layer": 5, "n_head": 4, "n_embd": 128, "n_positions": 128},
    "local": {"steps": 10, "batch_size": 4, "sequence_length": 128, "optimizer_state": "reset"},
}
SMALL = {
    "model": {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 32},
    "local": {"steps": 2, "batch_size": 4, "sequence_length": 32, "optimizer_state": "reset"},
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine at one size. `seconds` and `training` are of training rounds after the first."""

    engine: str
    institutions: int
    seconds: tuple[float, ...]
    training: float | None
    memory_mb: float
    total_seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "institutions": self.institutions,
            "seconds_a_round": round(statistics.median(self.seconds), 3),
            "training_share": None if self.training is None else round(self.training, 4),
            "memory_mb": round(self.memory_mb, 1),
            "total_seconds": round(self.total_seconds, 1),
        }


@dataclass(slots=True)
class MemoryWatch:
    """The highest proportional set size of a process and all that come of it."""

    pid: int
    highest: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self.highest = max(self.highest, proportional_bytes(self.pid))

    def stop(self) -> None:
        self._stop.set()


def proportional_bytes(pid: int) -> int:
    """Of the process and its descendants, now; those that ended meanwhile count nothing."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def watched(command: list[str]) -> tuple[str, float, float]:
    """Run a command to its end: its output, highest memory in MB, seconds.

    Raises:
        OperationError: it failed; holds the end of what it wrote.
    """
    started = time.monotonic()
    environment = {**FLOWER_QUIET, **os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        watch = MemoryWatch(process.pid)
        thread = threading.Thread(target=watch.run, daemon=True)
        thread.start()
        out, _ = process.communicate()
        watch.stop()
        thread.join()
        if process.returncode != 0:
            log.seek(0)
            raise OperationError(f"{command[3]} ended with {process.returncode}: {log.read()[-1500:]}")
    return out, watch.highest / MEGABYTE, time.monotonic() - started


class Bench:
    """Text, plan and initial weights, shared by all engines and sizes."""

    def __init__(self, folder: Path, *, quick: bool, rounds: int) -> None:
        self.folder, self.cores = folder, usable_cores()
        fields = {"apiVersion": "llmasos/v1", "name": "scale", "rounds": rounds, **(SMALL if quick else LARGE)}
        fields["evaluation"] = {"max_tokens": 128}
        (folder / "plan.yaml").write_text(json.dumps(fields))
        self.prepared = prepare(folder / "plan.yaml", folder / "prepared")
        self.parameters = sum(entry.elements for entry in self.prepared.draft.manifest)

    def institutions(self, count: int) -> tuple[InstitutionFolder, ...]:
        """Small folders of text; what is in them does not matter to time."""
        folders = []
        for number in range(count):
            name = f"v{number:04d}"
            folder = self.folder / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            for part in range(4):
                (folder / f"{part}.txt").write_text(f"institution {number} says {part} of many things. " * 40)
            folders.append(InstitutionFolder(name, folder))
        return tuple(folders)

    def job(self, count: int, name: str) -> Path:
        job = EngineJob(
            prepared=self.prepared.folder,
            institutions=tuple(
                VirtualInstitution(name=one.name, folder=one.folder) for one in self.institutions(count)
            ),
            home=self.folder / f"home-{name}-{count}",
            final=self.folder / f"final-{name}-{count}",
            resources=Resources(cores=self.cores),
        )
        path = self.folder / f"job-{name}-{count}.json"
        path.write_text(job.model_dump_json())
        return path

    def flower_engine(self, count: int) -> Measured:
        command = [sys.executable, "-P", "-m", "llmasos.flower.engine", str(self.job(count, "ours"))]
        out, memory, total = watched(command)
        rounds = [one for one in parse_view(out.strip().splitlines()[-1].encode()).rounds if one.task == "train"]
        timed = [(one.seconds, one.training_seconds or 0.0) for one in rounds]
        return self._measured("ours, flower engine", count, timed, memory, total)

    def fedavg(self, count: int) -> Measured:
        out, memory, total = watched([sys.executable, str(HERE / "scale_fedavg.py"), str(self.job(count, "fedavg"))])
        rounds = json.loads(out.strip().splitlines()[-1])["rounds"]
        timed = [(one["seconds"], one["training_seconds"]) for one in rounds]
        return self._measured("flower fedavg", count, timed, memory, total)

    def processes(self, count: int) -> Measured:
        out = self.folder / f"processes-{count}"
        institutions = [f"--institution={one.name}={one.folder}" for one in self.institutions(count)]
        plan = str(self.folder / "plan.yaml")
        command = [sys.executable, "-P", "-m", "llmasos.cli", "simulate", plan, *institutions, f"--out={out}"]
        _, memory, total = watched([*command, "--no-baselines"])
        report = json.loads((out / "report.json").read_text())
        seconds = [one["seconds"] for one in report["rounds"] if one["task"] == "train"]
        return Measured("ours, processes", count, tuple(seconds[1:]), None, memory, total)

    def _measured(
        self, engine: str, count: int, timed: list[tuple[float, float]], memory: float, total: float
    ) -> Measured:
        """Without the first round."""
        seconds = tuple(wall for wall, _ in timed[1:])
        share = sum(training for _, training in timed[1:]) / (self.cores * sum(seconds))
        return Measured(engine, count, seconds, share, memory, total)


def measure(bench: Bench, sizes: list[int], most_processes: int) -> dict[str, Any]:
    found: list[Measured] = []
    for count in sizes:
        if count <= most_processes:
            found.append(bench.processes(count))
        found += [bench.flower_engine(count), bench.fedavg(count)]
    rows = [one.as_json() for one in found]
    return {"parameters": bench.parameters, "cores": bench.cores, "rows": rows, "machine": machine.description()}


def table(found: dict[str, Any]) -> str:
    header = ("institutions", "engine", "seconds\na round", "training", "memory\nMB", "total\nseconds")
    rows = [
        (
            f"{row['institutions']:,}",
            row["engine"],
            f"{row['seconds_a_round']:.2f}",
            "-" if row["training_share"] is None else f"{row['training_share']:.1%}",
            f"{row['memory_mb']:,.0f}",
            f"{row['total_seconds']:.0f}",
        )
        for row in found["rows"]
    ]
    about = f"{found['parameters']:,} parameters, {found['cores']} cores, load {found['machine']['load'][0]}"
    return output.columns(header, rows) + f"\n{about}; pfl: not measured"


def plot(found: dict[str, Any]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found["rows"]:
        lines.setdefault(row["engine"], []).append((float(row["institutions"]), row["seconds_a_round"]))
    return output.lines_plot(lines, title="A round of virtual institutions", x="institutions", y="seconds", marks={})


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--institutions", type=output.numbers, help="how many, with commas between [10,100,1000]")
    parser.add_argument("--processes", type=int, default=10, help="at most so many as processes of a deployment")
    parser.add_argument("--rounds", type=int, default=3, help="training rounds; the first is not counted")
    options = parser.parse_args(arguments)
    options.institutions = options.institutions or ([4, 20] if options.quick else [10, 100, 1000])
    if min(options.institutions) < 3 or options.rounds < 2:
        parser.error("expected three institutions or more, and two --rounds or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        require_flower("ray", task="measure virtual institutions")
        require_train("torch", "transformers", "tokenizers", task="measure virtual institutions")
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
            bench = Bench(Path(folder), quick=options.quick, rounds=options.rounds)
            found = measure(bench, options.institutions, options.processes)
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
