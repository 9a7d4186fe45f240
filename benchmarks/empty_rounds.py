"""What a round costs when nothing is moved: a model of 4 KB, four real agents that train nothing, every checkpoint cosigned.

    python benchmarks/empty_rounds.py
    python benchmarks/empty_rounds.py --rounds 20 --participants 4 --json -

`round_ms` is the time from the first round's opening to the last training round's close, over the number of rounds: what lies
between rounds counts. `open_to_close_ms` is the median without it. `fsync_ms` is the median time until a page of 4 KiB is
durable, in the same folder, the mean of before and after the rounds. A round may take 100 ms and ten of these.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, output
from measuring.federation import LEAST_ROUNDS, Federation, Settings, cosigners, measure_federation

from common.errors import LLMasOSError, OperationError
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Processes

MODEL_BYTES = 4096
MOST_MS, MOST_FSYNCS, AIM_MS = 100.0, 10, 50.0


def measure(settings: Settings, folder: Path, effort: machine.Effort) -> dict[str, Any]:
    """
    Raises:
        OperationError: the run failed, or nobody cosigned.
    """
    before = machine.fsync_ms(folder, effort)
    layout = Layout(folder / "federation")
    with Processes() as processes:
        federation = measure_federation(settings, layout, processes)
    cosigned = cosigners(layout)
    if cosigned <= settings.participants // 2:
        raise OperationError(
            f"{cosigned} of {settings.participants} witnesses cosigned, expected a majority.",
            "Rounds without cosignatures are not what this measures.",
        )
    return report(settings, federation, (before + machine.fsync_ms(folder, effort)) / 2, cosigned)


def report(settings: Settings, federation: Federation, fsync_ms: float, cosigned: int) -> dict[str, Any]:
    spans = federation.spans
    round_ms = (spans[-1].closed - spans[0].opened) * 1000 / len(spans)
    allowed = MOST_MS + MOST_FSYNCS * fsync_ms
    used = federation.used
    return {
        "participants": settings.participants,
        "rounds": settings.rounds,
        "cosigners": cosigned,
        "round_ms": round(round_ms, 1),
        "open_to_close_ms": round(statistics.median(federation.round_seconds) * 1000, 1),
        "fsync_ms": round(fsync_ms, 3),
        "allowed_ms": round(allowed, 1),
        "met": {"round": round_ms < allowed, "aim": round_ms < AIM_MS},
        "processor_ms": {
            side: round(getattr(used, side).seconds * 1000, 1) for side in ("coordinator", "agents", "workers")
        },
        "each_ms": [round(seconds * 1000, 1) for seconds in federation.round_seconds],
        "machine": machine.description(),
    }


def table(found: dict[str, Any]) -> str:
    used = found["processor_ms"]
    header = (
        "",
        "ms a round",
        "open to\nclose",
        "may be",
        "",
        "fsync\nms",
        "processor ms\ncoordinator",
        "\nagents",
        "\nworkers",
    )
    row = (
        f"{found['rounds']} rounds × {found['participants']}",
        f"{found['round_ms']:.1f}",
        f"{found['open_to_close_ms']:.1f}",
        f"{found['allowed_ms']:.1f}",
        "met" if found["met"]["round"] else "NOT MET",
        f"{found['fsync_ms']:.2f}",
        *(f"{used[side]:.1f}" for side in ("coordinator", "agents", "workers")),
    )
    return output.columns(header, [row]) + f"\nload {found['machine']['load'][0]}, aim {AIM_MS:.0f} ms"


def plot(found: dict[str, Any]) -> str:
    """Each round's time, one after the other."""
    points = [(float(number), ms) for number, ms in enumerate(found["each_ms"], 1)]
    return output.lines_plot(
        {"open to close": points},
        title="Empty rounds",
        x="round",
        y="milliseconds",
        marks={"allowed": found["allowed_ms"], "aim": AIM_MS},
    )


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = output.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="training rounds [20]")
    parser.add_argument("--participants", type=int, default=4)
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 20)
    if options.rounds < LEAST_ROUNDS or options.participants < 1:
        parser.error(f"expected {LEAST_ROUNDS} --rounds or more, and a participant")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings = Settings(MODEL_BYTES, options.participants, options.rounds)
    effort = machine.QUICK if options.quick else machine.Effort()
    try:
        with tempfile.TemporaryDirectory(prefix="empty-rounds-", dir=options.folder) as folder:
            found = measure(settings, Path(folder), effort)
    except LLMasOSError as error:
        return output.failed(error)
    output.deliver(options, found, table, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
