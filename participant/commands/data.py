"""llmasos-participant data: what the worker may read, what it makes of it, and the removal of its copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.clock import SystemClock
from common.errors import UnknownObject, UnreadableData, UsageError
from common.names import check_name
from common.plan.tasks import TASK_TYPES, TASK_TYPES_WITH_FIELDS
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home, table
from participant.config import HomeLayout
from participant.datasets import (
    DataSet,
    add_data_set,
    check_data_set,
    data_set,
    data_sets,
    data_sets_for,
    remove_data_set,
)

if TYPE_CHECKING:
    from participant.bench.inspection import Finding

app = new_app("data", "Say what the worker may read, check it, remove its copies.")

NameArgument = Annotated[str, typer.Argument(help="The data set's name: lower-case letters, digits, hyphens.")]


@app.command()
def add(
    name: NameArgument,
    folder: Annotated[Path, typer.Argument(help="Folder of .txt, .md, .py, .jsonl and .csv files, subfolders too.")],
    purpose: Annotated[str, typer.Option(help="What it may be used for, in your words; stays here.")] = "",
    unit_field: Annotated[
        str | None,
        typer.Option(
            help="Field of .jsonl and .csv records that says whose text it is, such as patient_id: nobody's records are "
            "then divided between training and held-out."
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Field of .jsonl and .csv records that holds the text. Default: text.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="A task that it is for, as plans name it: causal-lm, seq2seq, instruction, …, or the name that a plan's "
            "mixture gives one. Repeatable. Default: every task."
        ),
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Name a folder of text that the worker may read."""
    layout = _layout(home)
    data = DataSet(
        name=check_name(name),
        folder=folder.expanduser().resolve(),
        purpose=_purpose(purpose),
        unit_field=unit_field,
        text_column=text_column,
        tasks=tuple(check_name(one) for one in task or ()),
    )
    contents = check_data_set(layout, data)
    path = add_data_set(layout, data)
    rows = [
        ("folder", str(data.folder)),
        ("files", f"{contents} ({contents.bytes:,} bytes)"),
        ("text", _text(data)),
        ("unit", _unit(data)),
        ("tasks", _tasks(data)),
        ("purpose", data.purpose or "-"),
        ("named in", str(path)),
    ]
    Terminal(output).result(
        f"Data set {data.name} added.\n{_lines(rows)}\n\n{_what_happens(layout, data)}",
        data={**_as_json(data), "files": contents.files, "bytes": contents.bytes, "file": str(path)},
        quiet=data.name,
    )


@app.command("list")
def list_(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """All data sets."""
    layout = _layout(home)
    found = data_sets(layout)
    rows = [
        (each.name, str(each.folder), each.unit_field or "-", ", ".join(each.tasks) or "every", each.purpose or "-")
        for each in found
    ]
    Terminal(output).result(
        table(("NAME", "FOLDER", "UNIT", "TASKS", "PURPOSE"), rows)
        if rows
        else "No data set yet. Add one: llmasos-participant data add NAME DIR.",
        data=[_as_json(each) for each in found],
        quiet="\n".join(each.name for each in found) or None,
    )


@app.command()
def show(name: NameArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """One data set: its folder, and how it is read."""
    layout = _layout(home)
    data = data_set(layout, name)
    rows = [
        ("data set", data.name),
        ("folder", str(data.folder)),
        ("text", _text(data)),
        ("unit", _unit(data)),
        ("tasks", _tasks(data)),
        ("purpose", data.purpose or "-"),
        ("named in", str(layout.data / f"{data.name}.yaml")),
    ]
    Terminal(output).result(_lines(rows), data=_as_json(data), quiet=str(data.folder))


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="One data set; without it, all.")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="PLAN.yaml",
            help="Read as this plan's task does: records with the fields that it names. Default: as text.",
        ),
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Read everything as a run would, by a worker; say what there is and what is wrong, by file and line.

    Nothing is kept and nothing leaves. Exits 2 where something is wrong.
    """
    from common.plan.load import load_plan
    from participant.bench.inspection import inspect_all
    from participant.config import load_config

    layout = _layout(home)
    chosen = (data_set(layout, name),) if name is not None else data_sets(layout)
    if not chosen:
        raise UnknownObject("There is no data set to check.", "Add one: llmasos-participant data add NAME DIR.")
    wanted = load_plan(plan) if plan is not None else None
    chosen = data_sets_for(wanted.task, chosen) if wanted is not None else _of_text(chosen)
    terminal = Terminal(output)
    terminal.progress(f"reading {', '.join(each.name for each in chosen)}")
    failed: list[str] = []
    for number, finding in enumerate(inspect_all(layout, load_config(layout.home), chosen, wanted)):
        terminal.result(("\n" if number else "") + _checked(finding), data=_checked_json(finding), quiet=None)
        if finding.problems:
            failed.append(f"{finding.data.name} ({finding.problems_found:,})")
    if failed:
        raise UnreadableData(
            f"Problems were found in {', '.join(failed)}.",
            "Correct or remove the files and lines named above; until then no run can use this data."
            if wanted is not None
            else "Correct or remove the files and lines named above; until then no run on text can use this data. Records with "
            "other fields are read as a plan says: llmasos-participant data check --plan PLAN.yaml.",
        )


@app.command()
def purge(
    run: Annotated[str | None, typer.Argument(help="A run, or the beginning of its name.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All runs; also temporary files and logs of the worker, which may quote text.")
    ] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Remove token files: the worker's copies of your text. Your own folders stay as they are.

    A run that goes on makes them again from the text.
    """
    from participant.bench.token_files import purge as remove_copies
    from participant.bench.token_files import runs_with_tokens

    layout = _layout(home)
    if (run is None) == (not all_):
        known = ", ".join(runs_with_tokens(layout)) or "none"
        raise UsageError("Expected a run, or --all.", f"Token files are here of these runs: {known}.")
    removed = remove_copies(layout, run, SystemClock().now())
    size = sum(each.bytes for each in removed)
    lines = [f"{each.bytes:>15,} bytes  {each.what}" for each in removed]
    Terminal(output).result(
        "\n".join([*lines, f"Removed: {size:,} bytes, files: {sum(each.files for each in removed):,}."]),
        data=[{"path": str(each.what), "files": each.files, "bytes": each.bytes} for each in removed],
        quiet=str(size),
    )


@app.command()
def remove(name: NameArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Forget a data set. Its folder stays as it is, and no run that is prepared from now on reads it."""
    from participant.bench.token_files import runs_with_tokens

    layout = _layout(home)
    removed = remove_data_set(layout, name)
    copies = runs_with_tokens(layout)
    told = f"Data set {removed.name} is forgotten; {removed.folder} stays as it is."
    if copies:
        told += (
            f"\nToken files made before may hold its text, for {', '.join(copies)}."
            "\nRemove them: llmasos-participant data purge --all"
        )
    Terminal(output).result(told, data={**_as_json(removed), "token_files": list(copies)}, quiet=removed.name)


# --- words --------------------------------------------------------------------------------------------------------------


def _what_happens(layout: HomeLayout, data: DataSet) -> str:
    whose = "units" if data.unit_field else "documents"
    return (
        "What happens with it: only the worker reads it, a process that is given no keys.\n"
        "For each accepted run it copies the text as token files, owner-only, in\n"
        f"{layout.jobs}/RUN/tokens.\n"
        "They go when the run ends, or at once by `data purge`. Some of the "
        f"{whose}\n(about a tenth, as the plan says) are held out to measure models. Deltas and\n"
        "losses leave as far as plan and policy allow; texts, names and fields never.\n"
        f"Next: llmasos-participant data check {data.name}"
    )


def _text(data: DataSet) -> str:
    return f"field {data.text_column or 'text'!r} of .jsonl and .csv records, else the whole file"


def _of_text(chosen: tuple[DataSet, ...]) -> tuple[DataSet, ...]:
    """Those that may be read without a plan, which alone says what the fields of other tasks are."""
    found = tuple(each for each in chosen if not each.tasks or not TASK_TYPES_WITH_FIELDS.issuperset(each.tasks))
    if not found:
        named = "; ".join(f"{each.name} is for {', '.join(each.tasks)}" for each in chosen)
        raise UsageError(f"A plan says which fields are read: {named}.", "Name one: --plan PLAN.yaml.")
    return found


def _tasks(data: DataSet) -> str:
    others = [name for name in data.tasks if name not in TASK_TYPES]
    named = f"; {', '.join(others)}: only in a mixture that has a task of this name" if others else ""
    return (", ".join(data.tasks) or "every") + named


def _unit(data: DataSet) -> str:
    if data.unit_field is None:
        return "each document is one (a file, or a record of .jsonl or .csv)"
    return f"field {data.unit_field!r}; none is divided between training and held-out"


def _checked(finding: Finding) -> str:
    data, found = finding.data, finding.inspected
    rows = [("data set", data.name), ("folder", str(data.folder))]
    if found is not None:
        held_out = f"about {found.held_out_units:,} where a plan holds out a tenth"
        if found.units == 1 and data.unit_field is None:
            held_out = "the end of the only document"
        rows += [
            ("files", f"{found.files:,}"),
            ("documents", f"{found.documents:,}"),
            ("characters", f"{found.characters:,}"),
            ("units", f"{found.units:,}" + ("" if data.unit_field else ", each document is one")),
            ("held out", held_out),
        ]
        if data.unit_field is not None:
            rows.append(("without unit", f"{found.records_without_unit:,}"))
    told = [("problem", problem) for problem in finding.problems]
    if finding.problems_found > len(told):
        told.append(("", f"and {finding.problems_found - len(told):,} more"))
    return _lines([*rows, *(told or [("problems", "none")])])


def _checked_json(finding: Finding) -> dict[str, Any]:
    counts = finding.inspected.model_dump(exclude={"type"}) if finding.inspected is not None else {}
    return {
        **_as_json(finding.data),
        **counts,
        "problems": list(finding.problems),
        "problems_found": finding.problems_found,
    }


def _as_json(data: DataSet) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude={"apiVersion"})


def _lines(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<14}{value}" for name, value in rows)


def _purpose(text: str) -> str:
    if len(text) > 200:
        raise UsageError(f"--purpose has {len(text)} characters, expected at most 200.", "Say it in fewer words.")
    return text


def _layout(home: Path | None) -> HomeLayout:
    """The home of a participant that has joined."""
    from participant.config import load_config

    folder = resolve_home(home, "participant")
    load_config(folder)
    return HomeLayout(folder)
