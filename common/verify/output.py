"""How a command shows a report: words, JSON, one HTML file, an exit code."""

from __future__ import annotations

import sys
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


def watching(terminal: Terminal, rounds: int | None = None) -> Watching:
    """Progress on stderr: a line that moves on a terminal, a line an event elsewhere."""
    moves = sys.stderr.isatty() and terminal.output is OutputFormat.HUMAN
    recomputed = 0

    def entry(index: int) -> None:
        if index % EVERY_ENTRIES == 0:
            terminal.progress(f"{index:,} entries follow")

    def each_round(run: str, number: int) -> None:
        nonlocal recomputed
        recomputed += 1
        share = f" of {rounds}" if rounds else ""
        if moves:
            sys.stderr.write(f"\r\x1b[Kround {number}{share} of {run}")
            sys.stderr.flush()
            if rounds is not None and recomputed >= rounds:
                sys.stderr.write("\r\x1b[K")
        else:
            terminal.progress(f"round {number}{share} of {run} looked at")

    return Watching(entry, each_round)
