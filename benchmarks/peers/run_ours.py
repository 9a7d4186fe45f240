"""LLMasOS: benchmarks/round_cost.py, which also moves the same bytes through bare gRPC."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import HERE
from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.job import Job, with_cause
from benchmarks.peers.observer import Observer, Usage
from benchmarks.peers.table import Measured, System

SCRIPT = HERE.parent / "round_cost.py"
EVENT = re.compile(r"^(\S+) INFO .*: round (opened|closed)  .*\bround=(\d+)", re.MULTILINE)
"""docs/events.md."""
WORKER = "null_worker.py"


def roles(argv: Sequence[str]) -> str | None:
    """Coordinator; agents and their workers. What moves bytes through bare gRPC is neither."""
    if any(word.endswith(WORKER) for word in argv):
        return "client"
    for module, role in (("coordinator", "server"), ("participant", "client")):
        for word, following in pairwise(argv):
            if word.split(".")[0] == module and following == "start":
                return role
    return None


class RoundTimes:
    """When the coordinator's log says that rounds opened and closed, Unix seconds; read while it is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._moments: dict[tuple[str, int], float] = {}

    def read(self) -> None:
        for log in self._folder.glob("*/logs/coordinator.log"):
            for at, what, number in EVENT.findall(log.read_text(errors="replace")):
                self._moments[what, int(number)] = datetime.fromisoformat(at).timestamp()

    def spans(self, rounds: int) -> list[tuple[float, float]]:
        """Of training rounds, from opening to close; empty where one is not known."""
        keys = [(("opened", number), ("closed", number)) for number in range(1, rounds + 1)]
        known = all(start in self._moments and end in self._moments for start, end in keys)
        return [(self._moments[start], self._moments[end]) for start, end in keys] if known else []


def own_version() -> str:
    """As pyproject.toml says."""
    return str(tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["project"]["version"])


class Ours:
    """With mutual TLS over gRPC, signatures and ledger."""

    name = "ours"

    def __init__(self) -> None:
        self.bare_seconds: float | None = None

    def describe(self, job: Job) -> System:
        """What runs; nothing has to be installed."""
        settings = (
            "coordinator and agents as processes, signatures, ledger and blobs on disk, a worker that trains nothing; "
            "the new model is written to disk"
        )
        return System(self.name, own_version(), "gRPC, mutual TLS", settings)

    def run(self, job: Job) -> Measured:
        """
        Raises:
            PeerFailure: it broke, or passed a limit.
        """
        result, log = job.work / "result.json", job.work / "round-cost.log"
        argv = [sys.executable, str(SCRIPT), "--json", str(result), "--folder", str(job.work)]
        argv += ["--mb", str(job.mb), "--participants", str(job.participants), "--rounds", str(job.rounds)]
        times = RoundTimes(job.work)
        with Observer(roles, job.limits) as observer:
            process = observer.start("round_cost.py", argv, log=log)

            def done() -> bool:
                times.read()
                return process.poll() == 0

            try:
                observer.wait_for(done)
            except PeerFailure as failure:
                raise with_cause(failure, [log]) from failure
            found = json.loads(result.read_text())
            self.bare_seconds = float(found["bare_grpc_seconds"])
            return combined(found, times.spans(job.rounds), observer.usage)


def combined(found: dict[str, Any], spans: Sequence[tuple[float, float]], usage: dict[str, Usage]) -> Measured:
    """The script's own figures, and what was seen from outside: processor time, and workers beside agents."""
    rounds = found.get("each", {}).get("round_seconds") or [found["round_seconds"]]
    server, client = usage["server"], usage["client"]
    return Measured(
        [float(each) for each in rounds],
        [server.cpu_between(*span) + client.cpu_between(*span) for span in spans],
        max(server.largest_mb, float(found["coordinator_peak_mb"])),
        max(server.together_mb, float(found["coordinator_peak_mb"])),
        max(client.largest_mb, float(found["agent_peak_mb"])),
    )
