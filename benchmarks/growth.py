"""How rounds grow: over bytes with real agents, over participants with simulated senders; linear is what is asked for.

    python benchmarks/growth.py                                                        # small sizes, minutes
    python benchmarks/growth.py --mb 100,400,1000,4000 --senders 4,8,16,32,64 --keep-rounds 1 --plot growth.svg

    bytes           a coordinator, --participants real agents with null workers, a model of each of --mb
    participants    a coordinator and each of --senders institutions that only send (senders.py), a model of --sender-mb

Each line is seconds for each GB moved: flat where growth is linear. `exponent` is the slope of log(seconds) over log(GB moved):
1 is linear. `line` is the best straight line through all points, weighted so that each counts by its relative error: a fixed
cost, a cost for each GB, and the largest deviation from it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, output
from measuring.accounting import MEGABYTE
from measuring.federation import (
    LEAST_ROUNDS,
    Federation,
    Settings,
    expect_room,
    measure_federation,
    real_agents,
)

from common.errors import LLMasOSError, OperationError
from common.plan.model import Plan
from llmasos.simulation.deployment import Deployment
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Processes, failed

SENDERS = Path(__file__).resolve().parent / "senders.py"
MOST_EXPONENT, MOST_DEVIATION = 1.1, 0.25
"""From here on growth is called more than linear, or no line at all."""
Start = Callable[[Deployment, Settings, Plan], None]


def simulated_senders(count_of_processes: int) -> Start:
    """Starts senders in so many processes, as evenly as it goes."""

    def start(deployment: Deployment, settings: Settings, plan: Plan) -> None:
        layout, first = deployment.layout, 1
        for at in range(count_of_processes):
            count = settings.participants // count_of_processes + (at < settings.participants % count_of_processes)
            if count == 0:
                continue
            argv = [sys.executable, str(SENDERS), "--coordinator", str(layout.coordinator), "--prepared"]
            argv += [str(layout.prepared), "--homes", str(layout.root / "participants")]
            argv += ["--first", str(first), "--count", str(count)]
            name = f"senders-{at + 1}"
            child = deployment.processes.start(name, argv, log=layout.log(name), lifeline=True, capture=True)
            deployment.participants[name] = child
            first += count
        for child in deployment.participants.values():
            if child.stdout.readline().strip() != b"ready":
                child.process.wait()
                raise failed(child)

    return start


def measure(settings: Settings, start: Start, folder: Path | None) -> dict[str, Any]:
    """One federation, one point."""
    with tempfile.TemporaryDirectory(prefix="growth-", dir=folder) as place, Processes() as processes:
        expect_room(Path(place), settings)
        return point(settings, measure_federation(settings, Layout(Path(place)), processes, start=start))


def point(settings: Settings, federation: Federation) -> dict[str, Any]:
    used, seconds = federation.used, federation.median_seconds
    moved = settings.gigabytes_moved
    return {
        "mb": settings.bytes // MEGABYTE,
        "participants": settings.participants,
        "gb_moved": round(moved, 3),
        "round_seconds": round(seconds, 3),
        "seconds_per_gb": round(seconds / moved, 3),
        "coordinator_processor_seconds_per_gb": round(used.coordinator.seconds / moved, 3),
        "all_processor_seconds_per_gb": round(used.all.seconds / moved, 3),
        "coordinator_peak_mb": round(federation.coordinator_peak_mb, 1),
        "participant_peak_mb": round(federation.agent_peak_mb, 1),
        "each": federation.round_seconds,
    }


def series(points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Points, and how straight the line through them is."""
    if len(points) < 2:
        raise OperationError("One point makes no line.", "Name two sizes, and two numbers of senders, or more.")
    moved = np.array([each["gb_moved"] for each in points])
    seconds = np.array([each["round_seconds"] for each in points])
    exponent = np.polyfit(np.log(moved), np.log(seconds), 1)[0]
    per_gb, fixed = np.polyfit(moved, seconds, 1, w=1 / seconds)
    deviation = np.max(np.abs(fixed + per_gb * moved - seconds) / seconds)
    return {
        "points": list(points),
        "exponent": round(float(exponent), 3),
        "line": {
            "fixed_seconds": round(float(fixed), 3),
            "seconds_per_gb": round(float(per_gb), 3),
            "largest_deviation": round(float(deviation), 3),
        },
        "met": bool(exponent <= MOST_EXPONENT and (exponent < 1 or deviation <= MOST_DEVIATION)),
    }


def table(found: dict[str, Any]) -> str:
    parts = []
    for name in ("bytes", "participants"):
        each = found[name]
        header = [f"over {name}", "GB moved", "round s", "s/GB", "processor s/GB\ncoordinator", "\nall"]
        header += ["coordinator\nMB", "participant\nprocess MB"]
        rows = [
            (
                f"{at['mb']} MB × {at['participants']}",
                f"{at['gb_moved']:.2f}",
                f"{at['round_seconds']:.2f}",
                f"{at['seconds_per_gb']:.2f}",
                f"{at['coordinator_processor_seconds_per_gb']:.2f}",
                f"{at['all_processor_seconds_per_gb']:.2f}",
                f"{at['coordinator_peak_mb']:.0f}",
                f"{at['participant_peak_mb']:.0f}",
            )
            for at in each["points"]
        ]
        line = each["line"]
        parts += [
            output.columns(header, rows),
            f"exponent {each['exponent']:.2f}; {line['fixed_seconds']:.2f} s + {line['seconds_per_gb']:.2f} s/GB, at most "
            f"{line['largest_deviation']:.0%} off: {'met' if each['met'] else 'NOT MET'}",
            "",
        ]
    return "\n".join([*parts, f"load {found['machine']['load'][0]}"])


def plot(found: dict[str, Any]) -> str:
    """Seconds for each GB over GB moved: flat is linear."""
    lines = {
        f"over {name}": [(at["gb_moved"], at["seconds_per_gb"]) for at in found[name]["points"]]
        for name in ("bytes", "participants")
    }
    return output.lines_plot(dict(lines), title="Growth", x="GB moved in a round", y="seconds for each GB moved")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--mb", type=output.numbers, help="sizes, millions of bytes [25,50,100,200]")
    parser.add_argument("--participants", type=int, default=4, help="real agents, where sizes grow [4]")
    parser.add_argument("--senders", type=output.numbers, help="numbers of simulated senders [4,8,16,32,64]")
    parser.add_argument("--sender-mb", type=int, help="size where senders grow [10]")
    parser.add_argument("--sender-processes", type=int, default=2, help="processes that hold all senders [2]")
    parser.add_argument(
        "--rounds", type=int, help="training rounds of each; the first two make files that later ones write over [6]"
    )
    parser.add_argument("--keep-rounds", type=int, help="of how many rounds the coordinator keeps the deltas [all]")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.mb = options.mb or ([2, 4] if quick else [25, 50, 100, 200])
    options.senders = options.senders or ([2, 4] if quick else [4, 8, 16, 32, 64])
    options.sender_mb = options.sender_mb or (1 if quick else 10)
    options.rounds = options.rounds or (2 if quick else 6)
    if options.rounds < LEAST_ROUNDS or min(len(options.mb), len(options.senders)) < 2:
        parser.error(f"expected two sizes and two numbers of senders or more, and {LEAST_ROUNDS} --rounds or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    keep, rounds = options.keep_rounds, options.rounds
    try:
        over_bytes = [
            measure(Settings(mb * MEGABYTE, options.participants, rounds, keep), real_agents, options.folder)
            for mb in options.mb
        ]
        senders = simulated_senders(options.sender_processes)
        over_participants = [
            measure(Settings(options.sender_mb * MEGABYTE, count, rounds, keep), senders, options.folder)
            for count in options.senders
        ]
        found = {
            "bytes": series(over_bytes),
            "participants": series(over_participants),
            "machine": machine.description(),
        }
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
