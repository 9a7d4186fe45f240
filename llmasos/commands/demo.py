"""`llmasos demo`: what `make demo` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import FormatOption, OutputFormat
from llmasos.commands.simulate import report


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for reports, model, logs and homes.")] = Path("out/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="The tiny plan, without comparisons: about a minute.")] = False,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Four institutions, each with another part of Python's library, train one GPT."""
    from llmasos.simulation import app  # lazily: needs torch

    raise typer.Exit(report(lambda: app.demo(app.DemoOptions(out=out, quick=quick)), out, output))
