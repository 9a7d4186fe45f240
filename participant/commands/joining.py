"""llmasos-participant join and doctor: become a member, and find out what stands in the way."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.clock import SystemClock
from common.errors import InvalidInvitation, UsageError
from common.identity.invitation import MAX_INVITATION_BYTES, parse_invitation
from common.terminal import WIDTH, FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.config import HomeLayout
from participant.policy import Policy, describe, load_policy

if TYPE_CHECKING:
    from participant.doctor import Finding
    from participant.joining import Joined

FINGERPRINT_DIGITS = 64
_STDIN = Path("-")
_WAITING = "Waiting; Ctrl-C is fine, the same command goes on later."
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_INDENT = 21


def join(
    invitation: Annotated[Path | None, typer.Argument(help="The invitation's file; - reads standard input.")] = None,
    invitation_file: Annotated[Path | None, typer.Option(help="The same, as an option.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of text that the worker may read. Later: data add NAME DIR.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Field of .jsonl and .csv records in --data.")] = None,
    answer: Annotated[
        Literal["ask", "accept", "refuse"] | None,
        typer.Option(help="To plans that break no rule of your policy. Default: ask, a person decides."),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The consortium's, from somebody you trust: with another one nothing is sent. 64 digits."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Encrypt the private keys under this file's first line; `start` needs it too.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the worker.")] = 1,
    wait: Annotated[
        str, typer.Option(help="How long to wait where institutions have to approve a new member: 90s, 30m, 2h, 7d.")
    ] = "1h",
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Become a member of a consortium by an invitation.

    Makes keys, which never leave, and a home folder with a policy that asks you. Interrupted, or when the network is not
    right yet, the same command goes on. It needs outgoing TCP to the coordinator, and nothing else;
    https_proxy=http://USER:PASSWORD@HOST:PORT is honoured.
    """
    from participant.joining import Joining, Patience
    from participant.joining import join as redeem

    seconds = _seconds(wait)
    folder, terminal = resolve_home(home, "participant"), Terminal(output)
    found = parse_invitation(_read(_source(invitation, invitation_file)))
    joining = Joining(data, text_column, threads, answer, _digits(fingerprint), passphrase_file)
    patience = Patience(seconds, lambda said: terminal.progress(f"{said} {_WAITING}"))
    joined = redeem(folder, found, joining, SystemClock(), patience)
    policy = load_policy(HomeLayout(folder).policy).policy
    terminal.result(
        _welcome(joined, folder, policy, named=home is not None, has_data=data is not None),
        data={
            "institution": joined.institution,
            "consortium": joined.consortium,
            "fingerprint": joined.fingerprint,
            "ledger_index": joined.roster_index,
            "home": str(folder),
            "policy": str(HomeLayout(folder).policy),
            "answer": policy.answer,
        },
        quiet=joined.institution,
    )


def doctor(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> int:
    """Find out what stands in the way, and what to do.

    Looks at home folder, keys, certificate, policy, data, disk, network, clock, daemon and worker. Changes nothing, and
    works while the daemon runs. Exits 1 if anything fails; a warning is no failure.
    """
    from participant.doctor import Doctor

    terminal = Terminal(output)
    findings: list[Finding] = []
    for finding in Doctor(resolve_home(home, "participant"), SystemClock(), terminal.progress).examine():
        findings.append(finding)
        if output is OutputFormat.HUMAN:
            terminal.result(_shown(finding), data=None)
    failed = [each for each in findings if each.state == "fail"]
    warned = [each for each in findings if each.state == "warn"]
    verdict = "fail" if failed else "warn" if warned else "ok"
    terminal.result(
        f"\n{len(findings)} checks: {len(failed)} failed, {len(warned)} with a warning.",
        data={"verdict": verdict, "checks": [each.as_json() for each in findings]},
        quiet=verdict,
    )
    return 1 if failed else 0


# --- words ----------------------------------------------------------------------------------------------------------------


def _welcome(joined: Joined, folder: Path, policy: Policy, *, named: bool, has_data: bool) -> str:
    where = f" --home {folder}" if named else ""
    steps = [] if has_data else [f"llmasos-participant data add NAME DIR{where}"]
    steps += [f"llmasos-participant doctor{where}", f"llmasos-participant start{where}"]
    if policy.answer == "ask":
        steps.append(f"llmasos-participant plan list{where}")
    return "\n".join(
        [
            f"{joined.institution} is a member of {joined.consortium} (ledger index {joined.roster_index}).",
            f"Fingerprint of the consortium: {joined.fingerprint}",
            f"\nYour policy, {HomeLayout(folder).policy}:",
            describe(policy),
            "\nNext:",
            *(f"  {step}" for step in steps),
        ]
    )


def _shown(finding: Finding) -> str:
    label = f"{finding.state:<6}{finding.check:<15}"
    indent = " " * _INDENT
    lines = _wrapped(finding.found, label if len(label) == _INDENT else f"{label} ", indent)
    if finding.fix:
        lines += _wrapped(f"fix: {finding.fix}", indent, f"{indent}     ")
    return "\n".join(lines)


def _wrapped(text: str, first: str, further: str) -> list[str]:
    """In 80 columns, but for paths and addresses that are longer: those are for copying."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )


# --- what was typed ---------------------------------------------------------------------------------------------------------


def _source(argument: Path | None, option: Path | None) -> Path:
    named = [path for path in (argument, option) if path is not None]
    if len(named) != 1:
        raise UsageError(
            f"Expected one invitation, got {len(named) or 'none'}.",
            "Name its file: llmasos-participant join FILE; or - for standard input.",
        )
    return named[0]


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise UsageError(f"--wait is {text!r}, expected a number and s, m, h or d, such as 2h; 0s does not wait.")
    return float(match[1]) * _UNITS[match[2]]


def _read(path: Path) -> str:
    if path == _STDIN:
        return sys.stdin.read(MAX_INVITATION_BYTES + 1)
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_INVITATION_BYTES + 1)
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidInvitation(f"{path} cannot be read as text: {err}.") from err


def _digits(fingerprint: str | None) -> str | None:
    """As people write it: in groups, in capitals, with a name before it."""
    if fingerprint is None:
        return None
    digits = fingerprint.lower().removeprefix("sha256:").translate({ord(each): None for each in " :-\t\n"})
    if len(digits) != FINGERPRINT_DIGITS or set(digits) - set("0123456789abcdef"):
        raise UsageError(
            f"--fingerprint has {len(digits)} characters, expected {FINGERPRINT_DIGITS} hexadecimal digits.",
            "Ask the operator for the whole fingerprint, which `llmasos-coordinator init` printed.",
        )
    return digits
