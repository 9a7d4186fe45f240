"""`llmasos simulate`: a whole consortium on this machine, as the processes of a real deployment."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.terminal import FormatOption, OutputFormat, Terminal


class Engine(StrEnum):
    """What carries the rounds."""

    PROCESSES = "processes"
    FLOWER = "flower"


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
        bool | None,
        typer.Option(
            "--baselines/--no-baselines",
            help="Also train each institution alone, and pooled data, to compare. Default: not with --engine flower.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="processes: a real deployment's. flower: hundreds of virtual institutions, on Ray.")
    ] = Engine.PROCESSES,
    data: Annotated[
        Path | None, typer.Option("--data", help="One folder of text, shared out by --partition.", show_default=False)
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            metavar="iid:COUNT|dirichlet:COUNT:ALPHA|key",
            help="Virtual institutions that share --data: alike, with skewed shares of the keys, or one a key.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Field of .jsonl and .csv files that is the key. Default: the first folder in a file's path."
        ),
    ] = None,
    partition_seed: Annotated[int, typer.Option(min=0, help="Of iid and dirichlet.")] = 0,
    seeds_from: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Engine flower: play the rounds of this finished simulation again, with its seeds: the same model.",
            show_default=False,
        ),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option(min=0.001, help="Engine flower: CPUs that an institution takes. Default: 1.", show_default=False),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Engine flower: GPUs that one takes; 0.25 trains four on one. Default: none.",
            show_default=False,
        ),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Engine flower: a Ray cluster's address. Default: Ray on this machine.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each institution's training.")] = 1,
    prompt: Annotated[str, typer.Option(help="What the report's sample text begins with.")] = "The ",
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Train one model with several institutions' folders of text (.txt, .md, .py, .jsonl, .csv)."""
    from llmasos.simulation import app  # lazily: needs torch
    from llmasos.simulation.asked import Asked
    from llmasos.simulation.deployment import parse_institution

    named = map(parse_institution, institutions or ())
    options = Asked(
        plan=plan,
        institutions=tuple(replace(one, text_column=one.text_column or text_column) for one in named),
        out=out,
        text_column=text_column,
        baselines=engine is Engine.PROCESSES if baselines is None else baselines,
        data=data,
        partition=partition,
        key=key,
        partition_seed=partition_seed,
        engine=engine.value,
        seeds_from=seeds_from,
        cpus=cpus,
        gpus=gpus,
        ray_address=ray_address,
        threads=threads,
        prompt=prompt,
    ).options()
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
