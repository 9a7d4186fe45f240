"""llmasos-participant status, egress, log and gain: what the daemon does, what left the house, what it is good for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from common.clock import SystemClock
from common.errors import UsageError
from common.terminal import (
    FormatOption,
    HomeOption,
    OutputFormat,
    Terminal,
    printable,
    resolve_home,
    table,
)
from participant.commands.status_text import lines
from participant.config import HomeLayout
from participant.memory.journal import Journal
from participant.memory.records import Records
from participant.overview import egress_of, overview
from participant.plans.deciding import PlanDesk

SinceOption = Annotated[
    str | None,
    typer.Option(help="Only what left since: a duration such as 7d or 12h, or RFC 3339.", show_default=False),
]
RunOption = Annotated[str | None, typer.Option(help="Only of this run: its id, or a unique beginning of it.")]


def status(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Show what runs, what waits, and what left the house.

    With it: until when, which data, who can read what left, whether the worker is isolated, budgets used, perplexity on own
    text, the certificate's end, standing orders.
    """
    now = SystemClock().now()
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        data = overview(desk, now)
    Terminal(output).result(
        lines(data),
        data=data,
        quiet="running" if data["running"] else "stopped",
    )


# --- what left --------------------------------------------------------------------------------------------------------


def egress(
    since: SinceOption = None,
    run: RunOption = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """List everything that left the house, with sums.

    Digests are of the bytes; of reports, which only count steps and bytes, that of the round which they were of.
    """
    now = SystemClock().now()
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        chosen = desk.find(run).run if run is not None else None
        journal = Journal(desk.layout.journal)
        try:
            left = egress_of(journal, _since(since, now), chosen, desk.runs())
        finally:
            journal.close()
    sums: dict[str, int] = {}
    for entry in left:
        sums[entry.kind] = sums.get(entry.kind, 0) + entry.bytes
    total = sum(sums.values())
    shown = table(
        ["TIME (UTC)", "KIND", "BYTES", "DIGEST", "RECEIVER"],
        [[entry.at[:19] + "Z", entry.kind, f"{entry.bytes:,}", entry.digest[:12], entry.receiver] for entry in left]
        + [["", f"all {kind}", f"{count:,}", "", ""] for kind, count in sorted(sums.items())]
        + [["", "all", f"{total:,}", "", ""]],
        right=frozenset({"BYTES"}),
    )
    Terminal(output).result(
        shown if left else "Nothing left the house.",
        data={
            "entries": [
                {name: getattr(entry, name) for name in ("at", "kind", "bytes", "digest", "receiver")} for entry in left
            ],
            "sums": sums,
            "bytes": total,
        },
        quiet=str(total),
    )


def _since(text: str | None, now: datetime) -> datetime | None:
    from participant.hours.pausing import parse_duration

    if text is None:
        return None
    duration = parse_duration(text)
    if duration is not None:
        return now - duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as err:
        raise UsageError(
            f"--since is {text!r}, expected a duration (7d, 12h) or RFC 3339.", "Write for example: --since 7d."
        ) from err
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


# --- what happened ----------------------------------------------------------------------------------------------------


def log(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="So many of the newest.")] = 50,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """List what happened here, newest last.

    Answers, orders, changes of the policy, interruptions. The daemon's own log is what `start` writes.
    """
    folder = resolve_home(home, "participant")
    with PlanDesk(folder, SystemClock()):
        pass  # says clearly where no participant is
    records = Records(HomeLayout(folder).journal)
    try:
        events = records.events(limit)
    finally:
        records.close()
    shown = [
        f"{event.at[:19]}Z  {event.event}"
        + "".join(f"  {name}={_value(value)}" for name, value in event.fields.items())
        for event in events
    ]
    Terminal(output).result(
        "\n".join(printable(line) for line in shown) or "Nothing has happened here yet.",
        data=[{"at": event.at, "event": event.event, **event.fields} for event in events],
    )


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {inner}" for name, inner in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
