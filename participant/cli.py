"""llmasos-participant: join a consortium, run the daemon, see what it does and what left the house."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from common.clock import SystemClock
from common.daemon import bound_memory, stop_event
from common.errors import InvalidInvitation
from common.identity.invitation import parse_invitation
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, run_app
from participant.config import HomeLayout
from participant.journal import Journal
from participant.status import read_status

app = new_app("llmasos-participant", "Join a consortium, run the daemon, see what it does.")


@app.command()
def join(
    invitation_file: Annotated[Path, typer.Option(help="The invitation; - reads it from standard input.")],
    data: Annotated[Path, typer.Option(help="Folder of this institution's text; only the worker reads it.")],
    text_column: Annotated[str | None, typer.Option(help="Field of .jsonl and .csv records.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the worker.")] = 1,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Redeem an invitation. Keys are made here and never leave."""
    from participant.joining import Joining
    from participant.joining import join as redeem

    folder = resolve_home(home, "participant")
    invitation = parse_invitation(_read(invitation_file))
    joined = redeem(folder, invitation, Joining(data, text_column, threads), SystemClock())
    policy = HomeLayout(folder).policy
    Terminal(output).result(
        f"{joined.institution} is a member of {joined.consortium} (ledger index {joined.roster_index}).\n"
        f"Fingerprint of the consortium: {joined.fingerprint}\n"
        f"Policy: {policy}\n"
        f"Next: llmasos-participant start --home {folder}",
        data={
            "institution": joined.institution,
            "consortium": joined.consortium,
            "fingerprint": joined.fingerprint,
            "home": str(folder),
        },
        quiet=joined.institution,
    )


@app.command()
def start(
    home: HomeOption = None,
    lifeline_fd: Annotated[int | None, typer.Option(help="Inherited pipe; the daemon ends when it closes.")] = None,
) -> None:
    """Run the participant, in the foreground, until SIGTERM or Ctrl-C."""
    from participant.app import serve

    bound_memory()
    serve(resolve_home(home, "participant"), stop_event(lifeline_fd))


@app.command()
def status(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """What the daemon does now, and what left the house."""
    from participant.app import load_config

    folder = resolve_home(home, "participant")
    config, layout = load_config(folder), HomeLayout(folder)
    now = read_status(layout.status)
    journal = Journal(layout.journal)
    try:
        left = journal.egress()
        entries = len(journal.ledger())
    finally:
        journal.close()
    data = {
        "institution": config.institution,
        "consortium": config.consortium,
        **now,
        "ledger_entries": entries,
        "bytes_sent": sum(entry.bytes for entry in left),
        "contributions": len({entry.digest for entry in left if entry.kind == "contribution"}),
    }
    rows = [
        ["institution", f"{config.institution} of {config.consortium}"],
        ["daemon", "running" if now["running"] else "not running"],
        ["connection", str(now.get("connection", "-")) if now["running"] else "-"],
        ["activity", _activity(now)],
        ["ledger", f"{entries} entries, each verified here"],
        ["left the house", f"{data['bytes_sent']:,} bytes in {data['contributions']} contributions"],
        ["worker", _worker(now)],
        ["data", ", ".join(str(source.folder) for source in config.data)],
    ]
    shown = "\n".join(f"{name:<16}{value}" for name, value in rows)
    Terminal(output).result(shown, data=data, quiet="running" if now["running"] else "stopped")


def _activity(now: dict[str, Any]) -> str:
    where = f" ({now['run']}, round {now['round']})" if now.get("run") else ""
    return f"{now.get('activity', '-')}{where}"


def _worker(now: dict[str, Any]) -> str:
    worker = now.get("worker")
    if not worker:
        return "not started yet"
    kept = "another user, no network" if worker["isolated"] else "same user: the split guards against accidents only"
    return f"{worker['device']}, CPU threads: {worker['threads']}; {kept}"


def _read(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read(64 * 1024)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidInvitation(f"{path} cannot be read as text: {err}.") from err


def main() -> NoReturn:
    """The console script."""
    run_app(app)
