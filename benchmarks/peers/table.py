"""The result: a row for each system, as a table for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.peers.observer import Usage

HEADER = ("system", "version", "s a round", "CPU s", "server MB", "together", "client MB", "ratio", "transport")
WORDS = {0, 1, 8}
FAILED = "failed: "


@dataclass(frozen=True, slots=True)
class System:
    """What ran: its version, how its connections are secured, and the settings that differ from its defaults."""

    name: str
    version: str
    transport: str
    settings: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What it took. A round's processor seconds are of server and clients together; memory is in megabytes."""

    round_seconds: Sequence[float]
    cpu_seconds: Sequence[float]
    server_largest_mb: float
    server_together_mb: float
    client_largest_mb: float

    @property
    def seconds(self) -> float:
        return typical(self.round_seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """A system with its figures, or with the cause why it has none. `load_before` is the machine's before it started."""

    system: System
    measured: Measured | None = None
    failure: str | None = None
    load_before: float | None = None


def typical(values: Sequence[float]) -> float:
    """The median of all rounds but the first, which pays for starting; of the only one where there is one."""
    return statistics.median(values[1:] or values)


def measured(rounds: Iterable[Sequence[float]], usage: dict[str, Usage]) -> Measured:
    """From each round's start and end (Unix seconds) and what was observed meanwhile."""
    spans = [(float(start), float(end)) for start, end in rounds]
    server, client = usage["server"], usage["client"]
    return Measured(
        [end - start for start, end in spans],
        [server.cpu_between(*span) + client.cpu_between(*span) for span in spans],
        server.largest_mb,
        server.together_mb,
        client.largest_mb,
    )


def report(rows: Sequence[Row], bare_seconds: float | None, **settings: object) -> dict[str, Any]:
    """Everything as plain values; rounded as far as it means something."""
    return {
        **settings,
        "bare_grpc_seconds": bare_seconds,
        "systems": [
            asdict(row.system) | {"load_before": row.load_before} | _figures(row, bare_seconds) for row in rows
        ],
    }


def _figures(row: Row, bare_seconds: float | None) -> dict[str, Any]:
    if row.measured is None:
        return {"failure": row.failure}
    found = row.measured
    return {
        "failure": None,
        "round_seconds": round(found.seconds, 3),
        "cpu_seconds": round(typical(found.cpu_seconds), 2) if found.cpu_seconds else None,
        "ratio": round(found.seconds / bare_seconds, 2) if bare_seconds else None,
        "server_peak_mb": round(found.server_largest_mb, 1),
        "server_together_mb": round(found.server_together_mb, 1),
        "client_peak_mb": round(found.client_largest_mb, 1),
        "each": {
            "round_seconds": [round(each, 3) for each in found.round_seconds],
            "cpu_seconds": [round(each, 2) for each in found.cpu_seconds],
        },
    }


def table(found: dict[str, Any]) -> str:
    """For people: one line a system, then what each ran with."""
    bare = found["bare_grpc_seconds"]
    title = f"{found['mb']} MB, {found['participants']} participants, {found['rounds']} rounds; bare gRPC: "
    lines = [HEADER, *(_line(each) for each in found["systems"])]
    # A failure's cause may run over the columns after it.
    widths = [max(len(line[column]) for line in lines if len(line) == len(HEADER)) for column in range(len(HEADER))]
    widths[:2] = (max(len(line[column]) for line in lines) for column in (0, 1))
    text = ["  ".join(map(_aligned, line, widths, range(len(line)))).rstrip() for line in lines]
    settings = [f"{each['name']}: {each['settings']}" for each in found["systems"]]
    return "\n".join([title + (f"{bare:.2f} s" if bare else "not measured"), "", *text, "", *settings])


def _aligned(cell: str, width: int, column: int) -> str:
    """Words to the left, numbers to the right."""
    return cell.ljust(width) if column in WORDS or cell.startswith(FAILED) else cell.rjust(width)


def _line(each: dict[str, Any]) -> tuple[str, ...]:
    if each["failure"] is not None:
        return each["name"], each["version"], f"{FAILED}{each['failure']}"
    return (
        each["name"],
        each["version"],
        f"{each['round_seconds']:.2f}",
        _or_dash(each["cpu_seconds"], ".1f"),
        f"{each['server_peak_mb']:,.0f}",
        f"{each['server_together_mb']:,.0f}",
        f"{each['client_peak_mb']:,.0f}",
        _or_dash(each["ratio"], ".1f"),
        each["transport"],
    )


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
