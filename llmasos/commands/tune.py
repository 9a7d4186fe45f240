"""`llmasos tune`: search a plan's settings by local training or by whole simulations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UsageError
from common.terminal import FormatOption, OutputFormat, Terminal, table


class Sampling(StrEnum):
    """Where the next settings come from."""

    TPE = "tpe"
    RANDOM = "random"
    GRID = "grid"


class Pruning(StrEnum):
    """Which trials are given up early."""

    MEDIAN = "median"
    HYPERBAND = "hyperband"
    NONE = "none"


class Measured(StrEnum):
    """What is to be small."""

    PERPLEXITY = "perplexity"
    BITS_PER_BYTE = "bits-per-byte"


def tune(
    plan: Annotated[Path, typer.Argument(help="The plan whose settings are searched.", show_default=False)],
    space: Annotated[
        Path,
        typer.Argument(help="YAML: FIELD: {low, high, log} or FIELD: [CHOICES], by dotted field.", show_default=False),
    ],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="A folder of text to train on here. Repeatable.")
    ] = None,
    institutions: Annotated[
        list[str] | None,
        typer.Option("--institution", metavar="NAME=DIR[:COLUMN]", help="With --federated: an institution. Repeat it."),
    ] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Field of .jsonl and .csv files.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the search; the same one goes on with it.")] = Path(
        "out/search"
    ),
    trials: Annotated[int, typer.Option(min=1, help="Settings to try in all.")] = 20,
    sampler: Annotated[Sampling, typer.Option(help="tpe learns from what was tried.")] = Sampling.TPE,
    pruning: Annotated[Pruning, typer.Option(help="Give up trials that go badly.")] = Pruning.MEDIAN,
    measure: Annotated[
        Measured, typer.Option(help="bits-per-byte where tokenizers differ between trials.")
    ] = Measured.PERPLEXITY,
    federated: Annotated[bool, typer.Option("--federated", help="Each trial is a whole simulation.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Search for a plan's best settings; killed and started again, it goes on where it was."""
    from llmasos.search import search as searching
    from llmasos.search.objective import Text
    from llmasos.search.report import as_json, files, rows
    from llmasos.search.space import shown
    from llmasos.simulation.cores import usable_cores
    from llmasos.simulation.deployment import parse_institution

    if federated == bool(data) or federated != bool(institutions):
        raise UsageError("Expected --data for local trials, or --federated with --institution for each institution.")
    named = [parse_institution(one) for one in institutions or ()]
    texts = [Text(one.name, one.folder, one.text_column or text_column) for one in named]
    texts += [Text(f"{place}", folder, text_column) for place, folder in enumerate(data or ())]
    terminal = Terminal(output)

    def on_trial(tried: searching.Tried) -> None:
        settings = ", ".join(f"{field}={shown(value)}" for field, value in tried.settings.items())
        result = tried.error if tried.value is None else f"{measure.value} {tried.value:,.5g}"
        terminal.progress(f"trial {tried.number} {tried.state}: {result or 'worse than others'} ({settings})")

    options = searching.TuneOptions(
        sampler=sampler.value,
        trials=trials,
        pruning=pruning.value,
        measure=measure.value,
        federated=federated,
        seed=seed,
        threads=threads or usable_cores(),
    )
    found = searching.tune(plan, space, data=texts, out=out, options=options, on_trial=on_trial)
    if output is OutputFormat.HUMAN:
        terminal.result(table(("trial", "state", measure.value, "settings"), rows(found)), data=None)
        terminal.result("\n" + "\n".join(str(file) for file in files(out)), data=None)
    else:
        terminal.result("", data=as_json(found), quiet=str(found.best_plan))
