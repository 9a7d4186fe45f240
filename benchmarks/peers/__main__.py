"""The same round on LLMasOS, Flower and NVFLARE, side by side; trains nothing.

    make bench-peers
    python -m benchmarks.peers --mb 100 --participants 4 --rounds 3 --json -

`s a round` is the median of all rounds but the first, `CPU s` the processor seconds of server and clients in it. Memory is
in megabytes: `server MB` and `client MB` the highest VmHWM of one process, `together` the most that all processes of the
server held at one moment. `ratio` is to moving the same bytes through bare gRPC, measured by round_cost.py in the same run. A
system that cannot be installed, breaks, or passes a limit is a row that says why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.job import Job, short
from benchmarks.peers.observer import Limits
from benchmarks.peers.proc import available_mb
from benchmarks.peers.run_flower import Flower
from benchmarks.peers.run_nvflare import NvFlare
from benchmarks.peers.run_ours import Ours
from benchmarks.peers.table import Measured, Row, System, report, table

SYSTEMS = ("ours", "flower", "nvflare", "flower-insecure", "nvflare-torch")
MEMORY_SHARE = 0.85
"""Of the memory that is free at the start: what a system may take by default, so that the machine survives it."""


class Runner(Protocol):
    """A system. Both methods raise PeerFailure."""

    def describe(self, job: Job) -> System: ...

    def run(self, job: Job) -> Measured: ...


def run(name: str, runner: Runner, job: Job) -> Row:
    """One system from installation to its last process's end; a failure is a row too."""
    system, load = System(name, "–", "–", "not run"), round(os.getloadavg()[0], 1)
    try:
        system = runner.describe(job)
        print(f"{name} {system.version}: {job.mb} MB, {job.participants} participants", file=sys.stderr, flush=True)
        return Row(system, runner.run(job), load_before=load)
    except PeerFailure as failure:
        return Row(system, failure=short(str(failure)), load_before=load)


def run_all(options: argparse.Namespace) -> tuple[list[Row], float | None]:
    """One after another, each in an empty folder that is gone afterwards unless --keep."""
    ours, rows = Ours(), []
    peers: tuple[Flower | NvFlare, ...] = (Flower(), Flower(tls=False), NvFlare(), NvFlare(torch=True))
    runners: dict[str, Runner] = {"ours": ours} | {peer.name: peer for peer in peers}
    cache = options.folder.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    limits = Limits(options.seconds, options.memory_mb or None)
    for name in options.systems:
        work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))
        try:
            job = Job(options.mb, options.participants, options.rounds, limits, cache, work)
            rows.append(run(name, runners[name], job))
        finally:
            if not options.keep:
                shutil.rmtree(work)
    return rows, ours.bare_seconds


def systems(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SYSTEMS)}")
    return names


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    free = available_mb()
    parser.add_argument("--mb", type=int, default=100, help="size of model and reply, millions of bytes; default 100")
    parser.add_argument("--participants", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--systems", type=systems, default=list(SYSTEMS[:3]), metavar="A,B", help=f"of {', '.join(SYSTEMS)}"
    )
    parser.add_argument("--seconds", type=float, default=900.0, help="time limit of one system; default 900")
    parser.add_argument(
        "--memory-mb",
        type=float,
        default=MEMORY_SHARE * free if free else None,
        help=f"memory limit of all processes of one system; 0 for none; default {MEMORY_SHARE:.0%} of what is free now".replace(
            "%", "%%"
        ),
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("out/peers"), help="keeps the peers' environments; default out/peers"
    )
    parser.add_argument("--keep", action="store_true", help="keep logs and deployments there too")
    parser.add_argument(
        "--json", metavar="FILE", help="write the result there; - is standard output, without the table"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if not Path("/proc/self/status").exists():
        sys.exit("error: what processes take is read from /proc, which only Linux has")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no process is left behind
    machine = {
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    rows, bare = run_all(options)
    found = report(
        rows,
        bare,
        mb=options.mb,
        participants=options.participants,
        rounds=options.rounds,
        machine=machine,
        limits={"seconds": options.seconds, "memory_mb": round(options.memory_mb) if options.memory_mb else None},
    )
    text = json.dumps(found, indent=2)
    print(text if options.json == "-" else table(found))
    if options.json not in {None, "-"}:
        Path(options.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
