"""llmasos-coordinator institution: invite, list."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from common.errors import UsageError
from common.names import check_name
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, table
from coordinator.commands.connection import operator_session

app = new_app("institution", "Members of the consortium.")


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="The institution's name, never given twice.")],
    expires: Annotated[
        str | None, typer.Option(help="How long the invitation is good: 48h, 7d. Default: invitation_hours.")
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Print an invitation. It holds a secret: send it over a channel that you trust."""
    check_name(name)
    with operator_session(resolve_home(home, "coordinator")) as session:
        text = session.invite(name, expires_hours=_hours(expires), roles=("trainer", "evaluator", "witness"))
    Terminal(output).result(text.rstrip("\n"), data={"institution": name, "invitation": text}, quiet=text.rstrip("\n"))


@app.command("list")
def list_institutions(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Members, and those who are invited."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        views = session.institutions()
    Terminal(output).result(
        table(
            ["INSTITUTION", "ROLES", "STATUS", "LAST SEEN"],
            [[view.name, " ".join(view.roles), view.status, view.last_seen or "-"] for view in views],
        ),
        data=[
            {"name": view.name, "roles": list(view.roles), "status": view.status, "last_seen": view.last_seen}
            for view in views
        ],
        quiet="\n".join(view.name for view in views),
    )


def _hours(text: str | None) -> int:
    """Hours, or 0 for what the coordinator's configuration says."""
    if text is None:
        return 0
    match = re.fullmatch(r"([1-9]\d{0,4})([hd])", text)
    if match is None:
        raise UsageError(f"--expires is {text!r}, expected a number and h or d, such as 48h.")
    return int(match[1]) * (24 if match[2] == "d" else 1)
