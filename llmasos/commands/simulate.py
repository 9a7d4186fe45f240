"""`llmasos simulate`: a whole consortium on this machine, as the processes of a real deployment."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common.terminal import FormatOption, OutputFormat, Terminal


def simulate(
    plan: Annotated[Path | None, typer.Argument(help="A plan. Default: the demo's.", show_default=False)] = None,
    institutions: Annotated[
        list[str] | None,
        typer.Option(
            "--institution", metavar="NAME=DIR[:COLUMN]", help="An institution and its folder of text. Repeat it."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for reports, model, logs and homes.")] = Path(
        "out/simulation"
    ),
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Field of .jsonl and .csv files, where :COLUMN names none.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also train each institution alone, and pooled data, to compare.")
    ] = True,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Train one model with several institutions' folders of text (.txt, .md, .py, .jsonl, .csv)."""
    from llmasos.simulation import app  # lazily: needs torch
    from llmasos.simulation.deployment import parse_institution

    named = map(parse_institution, institutions or ())
    folders = tuple(replace(one, text_column=one.text_column or text_column) for one in named)
    options = app.SimulationOptions(institutions=folders, out=out, plan=plan, baselines=baselines)
    raise typer.Exit(report(lambda: app.simulate(options), out, output))


def report(run: Callable[[], int], out: Path, output: OutputFormat) -> int:
    """Run a simulation, which writes for people; as JSON its result is OUT/report.json, quietly only where it lies."""
    with ExitStack() as redirected:
        if output is OutputFormat.JSON:
            redirected.enter_context(redirect_stdout(io.StringIO()))
        elif output is OutputFormat.QUIET:
            redirected.enter_context(redirect_stdout(io.StringIO()))
            redirected.enter_context(redirect_stderr(io.StringIO()))
        code = run()
    if output is not OutputFormat.HUMAN:
        Terminal(output).result("", data=json.loads((out / "report.json").read_text("utf-8")), quiet=str(out))
    return code
