"""How a command shows a report: words, JSON, one HTML file, an exit code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from common.errors import InvalidName, UsageError
from common.homes import atomic_write
from common.names import check_name
from common.terminal import OutputFormat, Terminal
from common.verify.material import Watching
from common.verify.report import Report
from common.verify.text import as_html, as_text

EVERY_ENTRIES = 1000
_KEY = re.compile(r"[0-9a-f]{64}")


def parse_fingerprint(given: str | None) -> str | None:
    """As people write it: in groups, in capitals, with a name before it. A mistyped one must not look like a forged ledger.

    Raises:
        UsageError: it is not 64 hexadecimal digits.
    """
    if given is None:
        return None
    digits = given.lower().removeprefix("sha256:").translate({ord(each): None for each in " :-\t\n"})
    if not _KEY.fullmatch(digits):
        raise UsageError(
            f"--fingerprint has {len(digits)} characters, expected 64 hexadecimal digits.",
            "Ask the operator or a member for the whole fingerprint.",
        )
    return digits


def _place_for_html(given: Path | None) -> Path | None:
    """Looked at before the work begins, which may take hours."""
    if given is not None and (given.is_dir() or not given.absolute().parent.is_dir()):
        raise UsageError(f"--html {given} is no place for a file.", "Name a file in a folder that exists.")
    return given


HtmlOption = Annotated[
    Path | None,
    typer.Option(help="Write the report as one HTML file, too.", show_default=False, callback=_place_for_html),
]
FingerprintOption = Annotated[
    str | None,
    typer.Option(
        help="The consortium's fingerprint, as you know it from elsewhere, hexadecimal.",
        show_default=False,
        callback=parse_fingerprint,
    ),
]
PinOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="NAME=KEY",
        help="An institution's signing key, as it showed you: 64 hexadecimal digits of its `identity show`. May be repeated.",
        show_default=False,
    ),
]


def parse_pins(given: Sequence[str] | None) -> dict[str, str]:
    """Signing keys by institution, from NAME=KEY; a key's id will do as well.

    Raises:
        UsageError: one is not of that form, or names an institution that another names.
    """
    pins: dict[str, str] = {}
    for each in given or ():
        name, equals, key = each.partition("=")
        try:
            check_name(name)
        except InvalidName as err:
            raise UsageError(f"--pin {each!r}: {err.message}", "Write --pin NAME=KEY.") from err
        if not equals or not _KEY.fullmatch(key.lower()):
            raise UsageError(
                f"--pin {name}: the key has {len(key)} characters, expected 64 hexadecimal digits.",
                "Ask the institution for its signing key: llmasos-participant identity show.",
            )
        if name in pins:
            raise UsageError(f"--pin names {name} twice.", "Give each institution's key once.")
        pins[name] = key.lower()
    return pins


def put_out(report: Report, output: OutputFormat, html: Path | None) -> None:
    """Show it, then exit: 0 verified, 4 verified with gaps, 1 failed."""
    if html is not None:
        atomic_write(html, as_html(report).encode())
    Terminal(output).result(as_text(report), data=report.as_json(), quiet=report.outcome)
    raise typer.Exit(report.outcome.exit_code)


def watching(terminal: Terminal) -> Watching:
    """Progress on stderr: a line for each round, and for every EVERY_ENTRIES entries."""

    def entry(index: int) -> None:
        if index % EVERY_ENTRIES == 0:
            terminal.progress(f"{index:,} entries follow")

    def each_round(run: str, number: int) -> None:
        terminal.progress(f"round {number} of {run} looked at")

    return Watching(entry, each_round)
