"""llmasos-coordinator institution: invite, list, revoke."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from common.clock import parse_rfc3339
from common.errors import UnknownObject, UsageError
from common.names import check_name
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, table
from coordinator.commands.connection import operator_session
from coordinator.commands.invitations import print_invitation

app = new_app("institution", "Members of the consortium: invite, list, revoke.")


class InstitutionRole(StrEnum):
    """What an institution takes part as; people have roles of their own: `operator invite`."""

    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    WITNESS = "witness"
    AUDITOR = "auditor"


DEFAULT_ROLES = (InstitutionRole.TRAINER, InstitutionRole.EVALUATOR, InstitutionRole.WITNESS)


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="The institution's name, never given twice.")],
    role: Annotated[
        list[InstitutionRole] | None,
        typer.Option(
            help="What it takes part as, repeatable. Default: trainer, evaluator, witness.", show_default=False
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long the invitation is good: 48h, 7d. Default: invitation_hours.")
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Print an invitation. It holds a secret: send it over a channel that you trust.

    An institution with the role auditor may read what plans name it for; people who operate or watch are invited with
    `operator invite`.
    """
    print_invitation(resolve_home(home, "coordinator"), name, role or DEFAULT_ROLES, expires, Terminal(output))


@app.command("list")
def list_institutions(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Members, and those who are invited."""
    with operator_session(resolve_home(home, "coordinator")) as session:
        views = session.institutions()
    Terminal(output).result(
        table(
            ["INSTITUTION", "ROLES", "STATUS", "LAST SEEN", "CERTIFICATE"],
            [
                [
                    view.name,
                    " ".join(view.roles),
                    view.status,
                    _minute(view.last_seen),
                    _left(view.certificate_expires_at) if view.status == "active" else "-",
                ]
                for view in views
            ],
        ),
        data=[
            {
                "name": view.name,
                "roles": list(view.roles),
                "status": view.status,
                "last_seen": view.last_seen,
                "certificate_expires_at": view.certificate_expires_at,
            }
            for view in views
        ],
        quiet="\n".join(view.name for view in views),
    )


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="A member, or somebody who is only invited.")],
    reason: Annotated[
        str, typer.Option(help="A code for the coordinator's log: lower-case letters, digits, hyphens.")
    ] = ("operator"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """End a membership at once and for good, or withdraw an invitation.

    Open calls of the member end within a second, and no round waits for it any more. What it contributed stays: a model
    that was trained with it does not unlearn. The name is never given again.
    """
    check_name(name)
    terminal = Terminal(output)
    with operator_session(resolve_home(home, "coordinator")) as session:
        found = {view.name: view.status for view in session.institutions()}.get(name)
        if found is None:
            raise UnknownObject(
                f"{name} is neither a member nor invited.", "See who is: llmasos-coordinator institution list."
            )
        was_member = found not in {"invited", "expired"}
        if was_member and found != "active":
            raise UsageError(f"{name} is no member any more: {found}.", "Nothing is to be done.")
        if was_member and not yes and not typer.confirm(f"Revoke {name} for good?", default=False, err=True):
            raise typer.Abort
        index = session.revoke(name, reason)
    said = f"{name} is revoked (ledger index {index})." if was_member else f"The invitation of {name} is withdrawn."
    status = "revoked" if was_member else "withdrawn"
    terminal.result(said, data={"name": name, "status": status, "ledger_index": index}, quiet=name)


def _minute(moment: str) -> str:
    """2026-11-21T22:12:00.000Z, shorter."""
    return f"{moment[:10]} {moment[11:16]}" if moment else "-"


def _left(expires_at: str) -> str:
    """What is left of a certificate's life."""
    if not expires_at:
        return "-"
    left = parse_rfc3339(expires_at) - datetime.now(UTC)
    if left.total_seconds() <= 0:
        return "expired"
    return f"{left.days} days" if left.days else f"{left.seconds // 3600} hours"
