"""llmasos-participant pause, resume and leave: what a person orders. The daemon acts within a second, or when it is started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common.clock import SystemClock, rfc3339
from common.errors import UsageError
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.config import HomeLayout
from participant.memory.orders import Order, OrderKind, Orders
from participant.memory.records import Event, Records
from participant.status import read_status

LEAVING = """Leaving is signed, and final under this name.

Deleted: every delta of {institution} that the coordinator still holds, which
it says in a signed statement; here models, deltas and token files.

Not undone: the ledger keeps every signed statement, those of {institution}
too, and models stay that were trained with its deltas. A trained model does
not unlearn what it learned.

Your text never left this machine. It stays where it is, untouched."""


def pause(
    until: Annotated[
        str | None,
        typer.Option(
            help="A time of day of this machine's clock (07:00), a duration (2h, 30m) or RFC 3339. "
            "Without it: until `resume`.",
            show_default=False,
        ),
    ] = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Stop the round in progress at once: a snapshot is taken, and the GPU is free within 10 s."
        ),
    ] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Let the worker rest. Without --now the round in progress goes on to its end; nothing new begins.

    A round that was stopped goes on later from its snapshot. The coordinator is told that this institution is paused, and
    until when; a round whose deadline comes first closes without it.
    """
    from participant.hours.pausing import parse_until

    layout = _layout(home)
    moment = parse_until(until, SystemClock().now()) if until is not None else None
    payload: dict[str, Any] = {"until": rfc3339(moment) if moment is not None else "", "now": now}
    _give(layout, "pause", payload)
    when = (
        f"until {moment.astimezone():%Y-%m-%d %H:%M %Z}" if moment is not None else "until: llmasos-participant resume"
    )
    what = "at once" if now else "after the round in progress"
    Terminal(output).result(
        f"Paused {what}, {when}.{_daemon_hint(layout)}", data=payload, quiet=payload["until"] or None
    )


def resume(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """End a pause.

    What waits goes on, where the policy's hours and the machine's load allow it.
    """
    layout = _layout(home)
    orders, records = Orders(layout.journal), Records(layout.journal)
    try:
        was_paused = orders.clear("pause")
        if was_paused:
            records.note(Event(rfc3339(SystemClock().now()), "resumed", {}))
    finally:
        orders.close()
        records.close()
    said = "The pause is over." if was_paused else "There was no pause."
    Terminal(output).result(said + _daemon_hint(layout), data={"was_paused": was_paused})


def leave(
    after_round: Annotated[
        bool, typer.Option("--after-round", help="Give the contribution of a round that is open now, then leave.")
    ] = False,
    now: Annotated[bool, typer.Option("--now", help="Stop the round in progress, and leave at once.")] = False,
    evidence: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the evidence of what was contributed. Default: HOME/evidence.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Leave the consortium, for good under this name.

    The evidence of what was contributed is exported first. The daemon then signs the leave, and waits for the coordinator's
    signed word that the deltas of this institution are deleted.
    """
    from participant.config import load_config
    from participant.memory.evidence import export_evidence

    if after_round == now:
        raise UsageError("Expected one of --after-round and --now.", "Write: llmasos-participant leave --after-round.")
    layout, terminal = _layout(home), Terminal(output)
    institution = load_config(layout.home).institution
    terminal.progress(LEAVING.format(institution=institution))
    if not yes and not typer.confirm("Leave?", default=False, err=True):
        raise typer.Abort
    folder = evidence or layout.home / "evidence"
    export_evidence(layout, institution, folder, replace=evidence is None)
    _give(layout, "leave", {"after_round": after_round})
    when = "after the round in progress" if after_round else "at once"
    running = read_status(layout.status)["running"]
    hint = (
        "Follow it with: llmasos-participant status"
        if running
        else "No daemon runs here. It carries the order out when it is started: llmasos-participant start"
    )
    terminal.result(
        f"Evidence: {folder}\nOrdered: leave {when}.\n{hint}",
        data={"evidence": str(folder), "after_round": after_round, "daemon_running": running},
        quiet=str(folder),
    )


def _layout(home: Path | None) -> HomeLayout:
    """
    Raises:
        NotInitialised: the folder holds no participant.
    """
    from participant.config import load_config

    folder = resolve_home(home, "participant")
    load_config(folder)
    return HomeLayout(folder)


def _give(layout: HomeLayout, kind: OrderKind, payload: dict[str, Any]) -> None:
    at = rfc3339(SystemClock().now())
    orders, records = Orders(layout.journal), Records(layout.journal)
    try:
        orders.give(Order(kind, payload, at))
        records.note(Event(at, f"ordered: {kind}", payload))
    finally:
        orders.close()
        records.close()


def _daemon_hint(layout: HomeLayout) -> str:
    if read_status(layout.status)["running"]:
        return ""
    return "\nNo daemon runs here; the order counts when it is started: llmasos-participant start"
