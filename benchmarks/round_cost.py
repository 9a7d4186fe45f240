"""What a round costs beyond moving its bytes: real coordinator, real agents, workers that train nothing.

    python benchmarks/round_cost.py --mb 400 --participants 4 --json -

In a round every participant takes the model and sends a delta of the same size. `round_seconds` is the median time from a
round's opening to its close, model written; `bare_grpc_seconds` that of moving the same bytes through bare gRPC streams with
the same TLS, in the same run (bare_grpc.py); `ratio` the one by the other. Memory is the highest of the whole run (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from synthetic_run import a_plan, prepare

from common.plan.model import Plan
from llmasos.simulation.deployment import Deployment, InstitutionFolder, edit_line
from llmasos.simulation.layout import Layout
from llmasos.simulation.monitor import follow
from llmasos.simulation.processes import Child, Lines, Processes, failed
from llmasos.simulation.progress import LineProgress
from llmasos.simulation.watch import RunView

HERE = Path(__file__).resolve().parent
MEGABYTE = 1_000_000
BARE_SECONDS = 600.0
COMMENTED_COMMAND = r"# command: .*"


@dataclass(frozen=True, slots=True)
class Settings:
    """How large, how many, how often."""

    mb: int
    participants: int
    rounds: int

    @property
    def bytes(self) -> int:
        return self.mb * MEGABYTE

    @property
    def names(self) -> list[str]:
        return [f"institution-{index}" for index in range(1, self.participants + 1)]


@dataclass(frozen=True, slots=True)
class Federation:
    """What the real system took."""

    round_seconds: list[float]
    coordinator_peak_mb: float
    agent_peak_mb: float


def measure_federation(settings: Settings, layout: Layout, processes: Processes) -> Federation:
    """Run all rounds; every process has ended when this returns."""
    started = time.monotonic()
    progress = LineProgress(sys.stderr, lambda: time.monotonic() - started)
    progress.stage(f"making a model of {settings.mb} MB")
    plan = a_plan(rounds=settings.rounds, participants=settings.participants)
    prepare(layout.prepared, plan, total_bytes=settings.bytes)
    with Deployment(layout, processes, consortium="benchmark") as deployment:
        progress.stage("starting coordinator and agents")
        deployment.start_coordinator()
        for name in settings.names:
            start_agent(deployment, name, plan)
        run = deployment.start_run(layout.prepared)
        followed = follow(deployment, run, progress, quorum=settings.participants)
        if not followed.succeeded:
            sys.exit(f"the run failed: {followed.view.end_reason}")
        coordinator = deployment.coordinator
        return Federation(
            training_seconds(followed.view),
            peak_mb(coordinator) if coordinator is not None else 0.0,
            max(peak_mb(agent) for agent in deployment.participants.values()),
        )


def start_agent(deployment: Deployment, name: str, plan: Plan) -> None:
    """An agent with the null worker as its training process."""
    text = deployment.layout.data / name
    text.mkdir(parents=True)
    (text / "text.txt").write_text("nothing is read\n")
    deployment.join(InstitutionFolder(name, text), threads=1)
    deployment.accept_runs(name, plan)
    command = json.dumps([sys.executable, str(HERE / "null_worker.py")])
    edit_line(deployment.layout.participant(name) / "participant.yaml", COMMENTED_COMMAND, f"command: {command}")
    deployment.start_participant(name)


def training_seconds(view: RunView) -> list[float]:
    return [entry.seconds for entry in view.rounds if entry.task == "train" and entry.outcome == "committed"]


def peak_mb(child: Child) -> float:
    """The highest resident memory that a running process had, megabytes; 0 where /proc does not say."""
    status = Path(f"/proc/{child.pid}/status")
    if not status.exists():
        return 0.0
    kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / MEGABYTE


def measure_bare(settings: Settings, layout: Layout, processes: Processes) -> list[float]:
    """Seconds of each repetition, one a round."""
    script = [sys.executable, "-P", str(HERE / "bare_grpc.py")]
    size = ["--bytes", str(settings.bytes)]
    server = processes.start(
        "bare server",
        [
            *script,
            "server",
            "--identity",
            str(layout.coordinator / "identity"),
            *size,
            "--peers",
            str(settings.participants),
        ],
        log=layout.log("bare-server"),
        capture=True,
    )
    address = str(json.loads(server.stdout.readline())["address"])
    ca = layout.coordinator / "identity" / "ca.pem"
    common = [*size, "--address", address, "--consortium", "benchmark", "--ca", str(ca)]
    common += ["--repetitions", str(settings.rounds)]
    peers = [
        processes.start(
            f"bare peer {name}",
            [*script, "peer", "--identity", str(layout.participant(name) / "identity"), *common],
            log=layout.log(f"bare-{name}"),
        )
        for name in settings.names
    ]
    seconds = read_seconds(server, peers, settings.rounds)
    processes.stop([*peers, server])
    return seconds


def read_seconds(server: Child, peers: list[Child], count: int) -> list[float]:
    """The server's measurements, while peers live."""
    lines = Lines()
    lines.add(server)
    found: list[float] = []
    deadline = time.monotonic() + BARE_SECONDS
    while len(found) < count:
        found += [float(json.loads(line)["seconds"]) for _, line in lines.wait(0.5)]
        for child in (server, *peers):
            broken = child.exit_code not in {None, 0} or (child is server and child.exit_code is not None)
            if broken or time.monotonic() > deadline:
                raise failed(child)
    lines.close()
    return found


def report(settings: Settings, federation: Federation, bare: list[float]) -> dict[str, object]:
    round_seconds, bare_seconds = statistics.median(federation.round_seconds), statistics.median(bare)
    return {
        "mb": settings.mb,
        "participants": settings.participants,
        "rounds": settings.rounds,
        "round_seconds": round(round_seconds, 3),
        "bare_grpc_seconds": round(bare_seconds, 3),
        "ratio": round(round_seconds / bare_seconds, 3),
        "coordinator_peak_mb": round(federation.coordinator_peak_mb, 1),
        "agent_peak_mb": round(federation.agent_peak_mb, 1),
        "each": {"round_seconds": federation.round_seconds, "bare_grpc_seconds": [round(one, 3) for one in bare]},
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=400, help="size of model and delta, millions of bytes")
    parser.add_argument("--participants", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="training rounds, and repetitions of the bare transfer")
    parser.add_argument("--json", metavar="FILE", default="-", help="where the result goes; - is standard output")
    parser.add_argument(
        "--folder", type=Path, help="where homes and blobs lie meanwhile; default: the temporary folder"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    settings = Settings(options.mb, options.participants, options.rounds)
    with tempfile.TemporaryDirectory(prefix="round-cost-", dir=options.folder) as folder, Processes() as processes:
        layout = Layout(Path(folder))
        federation = measure_federation(settings, layout, processes)
        bare = measure_bare(settings, layout, processes)
    text = json.dumps(report(settings, federation, bare), indent=2)
    if options.json == "-":
        print(text)
    else:
        Path(options.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
