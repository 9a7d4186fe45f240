"""What a round costs beyond moving its bytes: real coordinator, real agents, workers that train nothing.

    python benchmarks/round_cost.py                                            # a table: 100, 400 and 1000 MB
    python benchmarks/round_cost.py --mb 400 --participants 4,16 --json -      # JSON instead
    python benchmarks/round_cost.py --mb 4000 --rounds 2 --keep-rounds 1 --cgroup 512 --plot cost.svg

In a round every participant takes the model and sends a delta of the same size. `round_seconds` is the median time from a
round's opening to its close, model written; `bare_grpc_seconds` that of moving the same bytes through bare gRPC streams with
the same TLS, in the same run (bare_grpc.py); `ratio` the one by the other. Memory is the highest of the whole run (VmHWM).

    processor       seconds a round, user and kernel, from /proc between the first round's close and the last one's; per GB:
                    by the GB that a round moves, which is what the coordinator moves, and all agents together
    bound           what a round is held against: bare gRPC; above 1000 MB, if that is longer, the bytes that a round writes
                    over the disk's durable rate (measured, and not more than bases, deltas on both sides and the new model)
    where           processor seconds by step: derived from counts and unit costs (measuring/breakdown.py), but for `measured`
    profile         with --profile: shares of samples that perf took of each side, measured
    limits          what the machine does at best, measured in the same run (measuring/machine.py)
    cgroups         with --cgroup: each daemon in a memory cgroup of its own (measuring/cgroups.py)

The result of one size and one number of participants has that row's fields at its top, too. A row that could not be measured
has `failed`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import cost_report, machine, output
from measuring.accounting import GIGABYTE, MEGABYTE, Usage
from measuring.bare import Bare, measure_bare
from measuring.breakdown import UnitCosts, derived_seconds
from measuring.cgroups import CagedProcesses, Cages
from measuring.federation import LEAST_ROUNDS, Federation, Settings, expect_room, measure_federation
from measuring.profile import Profile
from measuring.units import unit_costs

from common.errors import LLMasOSError, OperationError
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Processes

LARGE_MB = 1000
"""Above it a round no longer fits in the page cache beside everything else, and the disk counts."""
MOST_MEMORY_MB = 300.0
MOVED_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Aids:
    """What goes along with each measurement."""

    limits: machine.Limits
    effort: machine.Effort
    folder: Path | None
    cgroup_mb: int | None
    profile: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """What a round is held against."""

    what: str
    seconds: float
    allowed: float
    """How many times as long a round may take."""


def measure_row(settings: Settings, aids: Aids) -> dict[str, Any]:
    """One size and one number of participants: the federation, then bare gRPC, then the arithmetic."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="round-cost-", dir=aids.folder)))
        expect_room(folder, settings)
        layout, profile = Layout(folder), Profile(folder / "perf.data") if aids.profile else None
        cages = stack.enter_context(Cages.find(aids.cgroup_mb * MEGABYTE)) if aids.cgroup_mb else None
        processes = stack.enter_context(CagedProcesses(cages) if cages else Processes())
        with explained_by(cages):
            federation = measure_federation(settings, layout, processes, profile)
        bare = measure_bare(settings, layout, processes)
        extras: dict[str, Any] = {}
        if cages is not None:
            extras["cgroups"] = {name: asdict(reading) for name, reading in cages.readings().items()}
        if profile is not None:
            extras["profile"] = profile.report()
    unit = unit_costs(aids.effort, participants=settings.participants)
    return report(settings, federation, bare, aids.limits, unit) | extras


@contextmanager
def explained_by(cages: Cages | None) -> Iterator[None]:
    """
    Raises:
        OperationError: what was raised inside; names the daemons that their cgroups' limit killed.
    """
    try:
        yield
    except OperationError as error:
        killed = [name for name, each in cages.readings().items() if each.oom_kills] if cages else []
        if not killed:
            raise
        raise OperationError(
            f"The limit of its memory cgroup killed {' and '.join(killed)}. {error.message}",
            "Raise --cgroup, to find out how much is needed.",
        ) from error


def row_or_failure(settings: Settings, aids: Aids) -> dict[str, Any]:
    """A row; one that fails does not take the others along."""
    try:
        return measure_row(settings, aids)
    except LLMasOSError as error:
        output.failed(error)
        mb = settings.bytes // MEGABYTE
        return {"mb": mb, "participants": settings.participants, "rounds": settings.rounds, "failed": error.message}


def report(
    settings: Settings, federation: Federation, bare: Bare, limits: machine.Limits, unit: UnitCosts
) -> dict[str, Any]:
    """A row, for machines."""
    bound = bound_of(settings, federation, bare, limits)
    moved = min(federation.moved_bytes) / GIGABYTE
    seconds = federation.median_seconds
    return {
        "mb": settings.bytes / MEGABYTE if settings.bytes % MEGABYTE else settings.bytes // MEGABYTE,
        "participants": settings.participants,
        "rounds": settings.rounds,
        "round_seconds": round(seconds, 3),
        "bare_grpc_seconds": round(bare.median_seconds, 3),
        "ratio": round(seconds / bare.median_seconds, 3),
        "coordinator_peak_mb": round(federation.coordinator_peak_mb, 1),
        "agent_peak_mb": round(federation.agent_peak_mb, 1),
        "bound": {
            "what": bound.what,
            "seconds": round(bound.seconds, 3),
            "ratio": round(seconds / bound.seconds, 3),
            "allowed": bound.allowed,
        },
        "met": {
            "time": seconds <= bound.allowed * bound.seconds,
            "memory": max(federation.coordinator_peak_mb, federation.agent_peak_mb) < MOST_MEMORY_MB,
            "all_bytes_moved": moved >= settings.gigabytes_moved * (1 - MOVED_TOLERANCE),
        },
        "close_to_close_seconds": round(federation.close_to_close_seconds, 3),
        "gb_moved": round(moved, 3),
        "gb_written": round(federation.used.all.written_bytes / GIGABYTE, 3),
        "processor": processor(settings, federation, bare),
        "where": where(settings, federation, bare, limits, unit),
        "each": {
            "round_seconds": federation.round_seconds,
            "bare_grpc_seconds": [round(one, 3) for one in bare.seconds],
        },
    }


def bound_of(settings: Settings, federation: Federation, bare: Bare, limits: machine.Limits) -> Bound:
    if settings.bytes <= LARGE_MB * MEGABYTE:
        return Bound("bare gRPC", bare.median_seconds, 1.25 if settings.bytes < LARGE_MB * MEGABYTE else 1.35)
    needed = settings.bytes * (3 * settings.participants + 1)
    disk_seconds = min(federation.used.all.written_bytes, needed) / GIGABYTE / limits.disk
    if disk_seconds > bare.median_seconds:
        return Bound("disk", disk_seconds, 1.1)
    return Bound("bare gRPC", bare.median_seconds, 1.1)


def processor(settings: Settings, federation: Federation, bare: Bare) -> dict[str, dict[str, float]]:
    """Seconds a round of every side."""
    used = federation.used

    def share(seconds: float) -> dict[str, float]:
        return {"seconds": round(seconds, 3), "seconds_per_gb": round(seconds / settings.gigabytes_moved, 3)}

    def ours(part: Usage) -> dict[str, float]:
        return share(part.seconds) | {"kernel_seconds": round(part.system_seconds, 3)}

    server, peers = bare.processor_seconds
    return {
        "coordinator": ours(used.coordinator),
        "agents": ours(used.agents),
        "workers": ours(used.workers),
        "all": ours(used.all),
        "bare_server": share(server),
        "bare_peers": share(peers),
        "bare_all": share(server + peers),
    }


def where(
    settings: Settings, federation: Federation, bare: Bare, limits: machine.Limits, unit: UnitCosts
) -> dict[str, float]:
    """Processor seconds by step; what the steps do not explain is `rest`, and may be below 0 where they say too much."""
    steps = derived_seconds(settings, limits, unit, sum(bare.processor_seconds))
    measured = federation.used.all.seconds
    return {
        **{step: round(seconds, 3) for step, seconds in steps.items()},
        "rest": round(measured - sum(steps.values()), 3),
        "measured": round(measured, 3),
    }


def result(rows: list[dict[str, Any]], limits: machine.Limits, cgroup_mb: int | None) -> dict[str, Any]:
    only = rows[0] if len(rows) == 1 else {}
    return {
        **only,
        "rows": rows,
        "limits": limits.report(),
        "cgroup_mb": cgroup_mb,
        "machine": machine.description(),
    }


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--mb", type=output.numbers, help="sizes of model and delta, millions of bytes [100,400,1000]")
    parser.add_argument("--participants", type=output.numbers, default=[4], help="how many [4]")
    parser.add_argument("--rounds", type=int, help="training rounds, and repetitions of the bare transfer [3]")
    parser.add_argument(
        "--keep-rounds", type=int, default=1, help="of how many rounds the coordinator keeps the deltas [1]"
    )
    parser.add_argument("--cgroup", type=int, metavar="MB", help="run each daemon in a memory cgroup of so many MB")
    parser.add_argument("--profile", action="store_true", help="sample all daemons with perf")
    options = parser.parse_args(arguments)
    options.mb = options.mb or ([20] if options.quick else [100, 400, 1000])
    options.rounds = options.rounds or (2 if options.quick else 3)
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds: expected {LEAST_ROUNDS} or more, got {options.rounds}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    effort = machine.QUICK if options.quick else machine.Effort()
    try:
        if options.cgroup is not None:
            Cages.find(options.cgroup * MEGABYTE)  # or it says at once why not
        with tempfile.TemporaryDirectory(prefix="limits-", dir=options.folder) as folder:
            limits = machine.measure(Path(folder), effort)
        aids = Aids(limits, effort, options.folder, options.cgroup, options.profile)
        rows = [
            row_or_failure(Settings(mb * MEGABYTE, participants, options.rounds, options.keep_rounds), aids)
            for participants in options.participants
            for mb in options.mb
        ]
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, result(rows, limits, options.cgroup), cost_report.table, cost_report.plot)
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
