"""How a command shows a report: words, JSON, one HTML file, an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.homes import atomic_write
from common.terminal import OutputFormat, Terminal
from common.verify.material import Watching
from common.verify.report import Report
from common.verify.text import as_html, as_text

HtmlOption = Annotated[Path | None, typer.Option(help="Write the report as one HTML file, too.", show_default=False)]
FingerprintOption = Annotated[
    str | None,
    typer.Option(help="The consortium's fingerprint, as you know it from elsewhere, hexadecimal.", show_default=False),
]
EVERY_ENTRIES = 1000


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
