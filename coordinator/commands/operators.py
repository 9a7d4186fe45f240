"""llmasos-coordinator operator: people who operate or watch the consortium, from any host."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.clock import SystemClock
from common.errors import InvalidInvitation
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from coordinator.commands.invitations import print_invitation

app = new_app("operator", "People who operate or watch the consortium, each with a certificate of their own.")


class PersonRole(StrEnum):
    """What somebody may do who trains nothing."""

    VIEWER = "viewer"
    AUDITOR = "auditor"
    OPERATOR = "operator"


MAX_INVITATION_CHARACTERS = 64 * 1024


@app.command()
def invite(
    name: Annotated[str, typer.Argument(help="The person's or team's name in the consortium, never given twice.")],
    role: Annotated[
        PersonRole,
        typer.Option(help="viewer and auditor watch; auditor may also read models; operator may do everything."),
    ],
    expires: Annotated[
        str | None, typer.Option(help="How long the invitation is good: 48h, 7d. Default: invitation_hours.")
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Print an invitation for `operator join`. It holds a secret: send it over a channel that you trust."""
    print_invitation(resolve_home(home, "coordinator"), name, (role,), expires, Terminal(output))


@app.command()
def join(
    invitation_file: Annotated[Path, typer.Option(help="The invitation; - reads it from standard input.")],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(help="File that holds a passphrase for the private keys. Default: they are not encrypted."),
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Redeem an invitation: a home from which this host's commands reach the coordinator. Keys are made here and stay."""
    from common.identity.invitation import parse_invitation
    from coordinator.members.operators import join_operator

    folder = resolve_home(home, "coordinator")
    joined = join_operator(folder, parse_invitation(_text(invitation_file)), SystemClock(), passphrase_file)
    Terminal(output).result(
        f"{joined.name} is a member of {joined.consortium}, until {joined.certificate_until}.\n"
        f"Fingerprint of the consortium: {joined.fingerprint}\n"
        f"Next: llmasos-coordinator run list --home {folder}",
        data={
            "name": joined.name,
            "consortium": joined.consortium,
            "fingerprint": joined.fingerprint,
            "certificate_until": joined.certificate_until,
            "home": str(folder),
        },
        quiet=joined.name,
    )


@app.command()
def renew(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """A new certificate for this home's operator, before the old one's end or after it."""
    from coordinator.members.operators import renew_operator

    renewed = renew_operator(resolve_home(home, "coordinator"))
    Terminal(output).result(
        f"The certificate of {renewed.name} is good until {renewed.certificate_until} "
        f"(ledger index {renewed.roster_index}).",
        data={
            "name": renewed.name,
            "serial": renewed.serial,
            "certificate_until": renewed.certificate_until,
            "ledger_index": renewed.roster_index,
        },
        quiet=renewed.certificate_until,
    )


def _text(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read(MAX_INVITATION_CHARACTERS)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidInvitation(f"{path} cannot be read as text: {err}.") from err
