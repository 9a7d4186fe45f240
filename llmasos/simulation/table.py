"""The result as a person reads it in a terminal: one table, what its words mean, and what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.terminal import printable
from llmasos.charts import shown as cell
from llmasos.evaluation.measured import SHORT, numbers
from llmasos.simulation.results import Comparison, Counted, Results, Scores, better_alone

COLUMNS = ("alone, own text", "alone, all text", "federated", "pooled data", "n-gram", "better off")
FEDERATED_COLUMN, NGRAM_COLUMN = 3, 5
HEADER_LINES = ("alone,\nown text", "alone,\nall text", "\nfederated", "pooled\ndata", "\nn-gram", "\nbetter off")
MISSING = "-"
ROWS = 16
"""Of more institutions not each one has a row; report.json holds all."""


def table_rows(results: Results) -> list[tuple[str, ...]]:
    """One row an institution, measured on its own held-out text, then one on all held-out text.

    Of more than ROWS institutions the ones that the federated model does worst and best for, and how many are between.
    """
    rows = [_institution_row(results, name) for name in results.institutions]
    if len(rows) > ROWS:
        rows = _ends(results)
    best = results.best_alone
    comparison = results.comparison
    pooled = (
        "all of them, pooled",
        MISSING,
        MISSING if best is None else f"best: {best[1]:,.2f}",
        number(results.federated, None),
        number(comparison.pooled_data if comparison else None, None),
        number(results.ngram.scores if results.ngram else None, None),
        _better(best[1] if best else None, results.federated.pooled if results.federated else None),
    )
    return [*rows, pooled]


def _ends(results: Results) -> list[tuple[str, ...]]:
    """The worst and the best rows, by the federated model's perplexity."""
    scores = results.federated.institutions if results.federated else {}
    ranked = sorted(results.institutions, key=lambda name: (-scores.get(name, 0.0), name))
    half, between = ROWS // 2, len(ranked) - ROWS // 2 * 2
    skipped = (f"({between:,} between)", *(len(COLUMNS) * (MISSING,)))
    chosen = [_institution_row(results, name) for name in (*ranked[:half], *ranked[-half:])]
    return [*chosen[:half], skipped, *chosen[half:]]


def shown(results: Results, cells: Sequence[str]) -> tuple[str, ...]:
    """Of a row's cells, or of their headings, those that hold anything: without baselines, federated and n-gram."""
    columns = range(len(cells)) if results.comparison is not None else (0, FEDERATED_COLUMN, NGRAM_COLUMN)
    return tuple(cells[column] for column in columns if column != NGRAM_COLUMN or results.ngram is not None)


def _institution_row(results: Results, name: str) -> tuple[str, ...]:
    comparison: Comparison | None = results.comparison
    alone = comparison.alone.get(name) if comparison else None
    federated = results.federated.institutions.get(name) if results.federated else None
    return (
        name,
        number(alone, name),
        number(alone, None),
        number(results.federated, name),
        number(comparison.pooled_data if comparison else None, name),
        number(results.ngram.scores if results.ngram else None, name),
        _better(alone.institutions.get(name) if alone else None, federated),
    )


def number(scores: Scores | None, institution: str | None) -> str:
    """A perplexity: pooled, or on one institution's own text."""
    if scores is None:
        return MISSING
    value = scores.pooled if institution is None else scores.institutions.get(institution)
    return MISSING if value is None else f"{value:,.2f}"


def _better(alone: float | None, federated: float | None) -> str:
    if alone is None or federated is None:
        return MISSING
    return "alone" if alone < federated else "federated"


def verdict(results: Results) -> str:
    """One or two sentences: does the federation pay, and for whom it does not; or why there is no model."""
    if not results.succeeded:
        return f"The run failed: {results.view.end_reason}."
    if results.federated is None:
        return "The final model was not measured."
    best = results.best_alone
    if best is None:
        return f"The federated model has perplexity {results.federated.pooled:,.2f} on all held-out text."
    ratio = results.federated.pooled / best[1]
    name, value = best
    text = (
        f"On all held-out text the federated model has perplexity {results.federated.pooled:,.2f}: {ratio:.2f} × that of "
        f"the best model trained alone ({name}, {value:,.2f})."
    )
    losers = better_alone(results)
    if not losers:
        return f"{text} No institution is better off alone."
    return f"{text} Better off alone on their own text: {', '.join(losers)}."


def verified(results: Results) -> Iterator[str]:
    """What every party's own verification says of what is left in the folder."""
    found = results.verification
    if found is None:
        yield "Not verified: this engine signs nothing and keeps no ledger."
        return
    who = f"{len(found.sides)} sides, each by its own command"
    yield f"{found.outcome.replace('-', ' ').capitalize()} from {who}: every statement, every round computed again."
    yield from found.findings


def explanations(results: Results) -> Iterator[str]:
    """What the columns mean, precisely."""
    plan = results.statement.plan
    local = plan.local
    comparison = results.comparison
    yield "Held-out perplexity, lower is better: each row on documents that no training saw."
    if results.ngram is not None:
        yield _counting(results.ngram)
    if comparison is None:
        return
    yield (
        f"All trainings have the same {results.steps:,} optimizer steps, seed {plan.seed}, {local.schedule.type} schedule and "
        "initial weights."
    )
    batch = local.batch_size
    times = comparison.batch_multiplier
    yield (
        f"alone: one institution's text only, {batch} sequences a step; measured on its own held-out text and on "
        "everybody's."
    )
    yield (
        f"pooled data: the upper bound that nobody may have: all text in one place, the same steps with {batch} × {times} = "
        f"{batch * times} sequences a step, so that it sees as many tokens as the whole federation saw."
    )


def _counting(ngram: Counted) -> str:
    """What the n-gram model is, and what it saw."""
    left_out = f", {ngram.left_out:,} more left out" if ngram.left_out else ""
    return (
        f"n-gram: what mere counting reaches on the same windows: modified Kneser-Ney of order {ngram.order} over "
        f"everybody's training text ({ngram.num_tokens:,} tokens{left_out}), which like pooled data nobody may have."
    )


def next_steps(results: Results, out: Path) -> list[tuple[str, str]]:
    """What to try, and what for."""
    model, plan = shlex.quote(str(out / "model")), shlex.quote(str(out / "plan.yaml"))
    again = (f"llmasos verify {shlex.quote(str(out))}", "the same verification again, in full")
    more = (f"llmasos generate {model} {shlex.quote(results.sample_prompt)}", "let the model go on with text of yours")
    return [
        *([more] if results.statement.plan.task.head == "causal-lm" else []),
        *([again] if results.verification is not None else []),
        ("llmasos simulate --institution NAME=FOLDER … --out out/mine", "the same with your own folders of text"),
        (f"llmasos plan explain {plan}", "what was trained, every default visible"),
        (str(out / "report.html"), "the curves, for a browser; report.json for programs"),
        (str(out / "README.md"), "logs, configuration, how to restart one participant by hand"),
    ]


def results_table(results: Results) -> Table:
    """The one table; it fits in 80 columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    first, *others = shown(results, ("\nheld-out text of", *HEADER_LINES))
    table.add_column(first, overflow="fold", min_width=16)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    rows = [shown(results, row) for row in table_rows(results)]
    for index, row in enumerate(rows):
        table.add_row(*(escape(cell) for cell in row), style="bold" if index == len(rows) - 1 else "")
    return table


def measures_table(results: Results) -> Table | None:
    """The final model by all that its task has, beside the perplexity above; None where that is all."""
    found = results.measured
    if found is None:
        return None
    rows = [*found.languages.items(), ("all of them, pooled", found.whole)]
    skipped = {"loss", "perplexity", "word_perplexity", "byte_perplexity"}
    values = {name: numbers(scores, found.task) for name, scores in rows}
    names = [name for name, value in values[rows[-1][0]].items() if name not in skipped and value is not None]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("final model on held-out data of", overflow="fold", min_width=16)
    for name in names:
        table.add_column(SHORT.get(name, name.replace("_", " ")), justify="right", overflow="fold")
    for index, (who, own) in enumerate(values.items()):
        if index < ROWS or index == len(values) - 1:
            style = "bold" if index == len(values) - 1 else ""
            table.add_row(escape(who), *(cell(own.get(name)) for name in names), style=style)
    return table


def print_results(results: Results, out: Path, console: Console) -> None:
    """Print everything that a simulation ends with; commands stay on one line, to be copied."""
    console.print()
    if not results.succeeded:
        console.print(Text(verdict(results), style="bold"))
        console.print(
            Text(f"Round by round: {out / 'report.html'}. What each process wrote: {out / 'logs'}."), soft_wrap=True
        )
        return
    console.print(results_table(results))
    console.print(Text(verdict(results), style="bold"))
    if (measures := measures_table(results)) is not None:
        console.print(measures)
    for line in explanations(results):
        console.print(Text(line, style="dim"))
    for line in verified(results):
        console.print(Text(line, style="bold"))
    if results.sample_text:
        console.print()
        console.print(Text.assemble("The model goes on with ", (repr(results.sample_prompt), "bold"), ":"))
        console.print(Text(printable(results.sample_text), style="green"))
    console.print(Text("\nWhat to try next", style="bold"))
    for command, why in next_steps(results, out):
        console.print(Text(f"  {command}"), soft_wrap=True)
        console.print(Text(f"      {why}", style="dim"))
