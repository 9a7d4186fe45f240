"""Rows as table, JSON and plot, the same for an operator and for an institution."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.contributions.plot import Panel, bars
from common.errors import UnknownObject, UsageError
from common.homes import atomic_write
from common.ledger.state import RoundRecord, RunRecord
from common.terminal import WIDTH, OutputFormat, Terminal, table

if TYPE_CHECKING:  # numpy comes with it, and daemons load their commands
    from common.contributions.figures import RoundFigures, Row

RoundOption = Annotated[
    int | None,
    typer.Option("--round", min=1, metavar="N", help="Only this round. Default: all committed.", show_default=False),
]


def _place_for_plot(given: Path | None) -> Path | None:
    """Looked at before the work begins."""
    if given is not None and (given.is_dir() or not given.absolute().parent.is_dir()):
        raise UsageError(f"--plot {given} is no place for a file.", "Name a file in a folder that exists.")
    return given


PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.svg", help="Draw it, too.", show_default=False, callback=_place_for_plot),
]

_EFFECT = (
    "Effect: mean loss on the given text, in nats a token, without the delta minus with it. Above zero, it helped."
)
_COSINE = "Cosine: between the delta and what the round added to the model; 1 is the same direction."


def committed_rounds(run: RunRecord, number: int | None) -> tuple[RoundRecord, ...]:
    """The rounds that are asked for.

    Raises:
        UnknownObject: there is no such committed training round, or none at all.
    """
    committed = run.committed("train")
    found = tuple(record for record in committed if number in {None, record.number})
    if not found:
        has = ", ".join(str(record.number) for record in committed[-20:]) or "none yet"
        which = "any" if number is None else str(number)
        raise UnknownObject(
            f"Run {run.run} has no committed training round of number {which}; its newest: {has}.",
            "Name a committed round: run show lists them.",
        )
    return found


def put_out(run: RunRecord, rounds: Sequence[RoundFigures], terminal: Terminal, plot: Path | None) -> None:
    """Write rows, reasons where figures are lacking, and the plot."""
    rows = [row for figures in rounds for row in figures.rows]
    if not rows:
        raise UnknownObject(f"No delta that may be shown was used in these rounds of {run.run}.")
    if plot is not None:
        atomic_write(plot, _drawing(run, rows).encode())
    measured = any(figures.loss is not None for figures in rounds)
    columns = ["ROUND", "INSTITUTION", "TOKENS", "SHARE", "NORM", "COSINE", *(["EFFECT"] if measured else [])]
    shown = [_cells(row)[: len(columns)] for row in rows]
    lines = table(columns, shown, right=frozenset(columns) - {"INSTITUTION"})
    data: dict[str, Any] = {"run": run.run, "rounds": [asdict(figures) for figures in rounds]}
    terminal.result(lines, data=data, quiet="\n".join(" ".join(_cells(row)) for row in rows))
    if terminal.output is OutputFormat.HUMAN:
        notes = [_COSINE, *([_EFFECT] if measured else []), *_reasons(rows)]
        wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes]
        terminal.result("\n".join(wrapped + ([f"Plot: {plot}"] if plot is not None else [])), data=None)


def _cells(row: Row) -> list[str]:
    return [
        str(row.round),
        row.institution,
        f"{row.num_tokens:,}",
        f"{100 * row.share:.1f} %",
        "-" if row.l2 is None else f"{row.l2:.4g}",
        "-" if row.cosine is None else f"{row.cosine:+.3f}",
        "-" if row.effect is None else f"{row.effect:+.4f}",
    ]


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for what, why in (("norm and cosine", row.lacking), ("effect", row.effect_lacking)):
            if why:
                yield f"Round {row.round}, {row.institution}: no {what}: {why}."


def _drawing(run: RunRecord, rows: Sequence[Row]) -> str:
    """By institution, over the rounds shown; of one institution alone, by round."""
    institutions = sorted({row.institution for row in rows})
    rounds = sorted({row.round for row in rows})
    alone = len(institutions) == 1
    groups = (
        {f"round {row.round}": [row] for row in rows}
        if alone
        else {name: [row for row in rows if row.institution == name] for name in institutions}
    )
    span = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
    whose = f", {institutions[0]}" if alone else ""
    mean = "" if alone or len(rounds) == 1 else ", mean"
    panels = [
        Panel("tokens", [float(sum(row.num_tokens for row in group)) for group in groups.values()], ",.0f"),
        Panel(f"norm{mean}", [_mean([row.l2 for row in group]) for group in groups.values()]),
        Panel(f"cosine{mean}", [_mean([row.cosine for row in group]) for group in groups.values()], "+.3f"),
    ]
    if any(row.effect is not None for row in rows):
        panels.append(Panel(f"effect{mean}", [_mean([r.effect for r in group]) for group in groups.values()], "+.4f"))
    return bars(f"{run.run}, {span}{whose}", list(groups), panels)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
