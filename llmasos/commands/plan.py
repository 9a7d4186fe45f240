"""`llmasos plan`: look at a plan, check it, and prepare what a run starts from."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from common import strict_yaml
from common.errors import UsageError
from common.plan.explain import Explanation, Row, adapter_text, explain
from common.plan.load import load_plan, plan_schema, plan_yaml
from common.plan.model import Plan
from common.tensors import trainable_elements
from common.terminal import WIDTH, FormatOption, OutputFormat, Terminal, new_app

app = new_app("plan", "Look at a plan, check it, prepare it for a run.")

PlanFile = Annotated[Path, typer.Argument(help="A plan, as YAML.", show_default=False)]
Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field, as in local.steps=50. Repeatable."),
]


@app.command()
def show(plan: PlanFile, settings: Override = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Print the whole plan, every default visible."""
    loaded = load_plan(plan, overrides=overrides(settings))
    text = plan_yaml(loaded).rstrip()
    Terminal(output).result(text, data=_data(loaded), quiet=text)


@app.command("explain")
def explain_command(plan: PlanFile, settings: Override = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Say what each field means, what follows from it, and what happens in a round."""
    explanation = explain(load_plan(plan, overrides=overrides(settings)))
    Terminal(output).result(_in_words(explanation), data=dataclasses.asdict(explanation))


@app.command()
def check(plan: PlanFile, settings: Override = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Say whether the plan is valid; exit with 2 and the reasons if not."""
    loaded = load_plan(plan, overrides=overrides(settings))
    adapter = f" with {adapter_text(loaded)}" if adapter_text(loaded) else ""
    line = (
        f"{plan}: valid. {loaded.model.type}{adapter}, {loaded.rounds} rounds of {loaded.local.steps} steps, "
        f"quorum {loaded.quorum}."
    )
    Terminal(output).result(line, data={"valid": True, "name": loaded.name})


@app.command()
def schema() -> None:
    """Print the JSON Schema of plan files, for editors."""
    Terminal().result(json.dumps(plan_schema(), indent=2), data=None)


@app.command()
def prepare(
    plan: PlanFile,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to make. Default: prepared/NAME.")] = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Make initial weights, tokenizer and tensor list, pinned by digest: what `run start` takes."""
    folder = out or Path("prepared") / load_plan(plan).name
    terminal = Terminal(output)
    terminal.progress(f"preparing {plan}")
    from llmasos.preparation import prepare as prepare_plan  # lazily: needs torch

    draft = prepare_plan(plan, folder).draft
    elements, trained = sum(tensor.elements for tensor in draft.manifest), trainable_elements(draft.manifest)
    data = {
        "run": draft.run,
        "folder": str(folder),
        "parameters": elements,
        "trained_parameters": trained,
        "tensors": len(draft.manifest),
        "model": draft.initial.model.model_dump(),
        "tokenizer": draft.initial.tokenizer.model_dump(),
    }
    human = (
        f"run        {draft.run}\nparameters {elements:,} in {len(draft.manifest)} tensors"
        f"{f', {trained:,} of them trained' if trained < elements else ''}\n"
        f"model      {draft.initial.model}\ntokenizer  {draft.initial.tokenizer}\n\n"
        f"Next: llmasos-coordinator run start {folder}"
    )
    terminal.result(human, data=data, quiet=str(folder))


@app.command()
def export(
    prepared: Annotated[Path, typer.Argument(help="Folder that `plan prepare` made.", show_default=False)],
    tensors: Annotated[
        Path, typer.Argument(help="What `llmasos-coordinator run export` fetched of the run.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Make a model folder in Hugging Face layout of a run's tensors; LoRA is merged into it, and beside it in adapter/."""
    from llmasos.generation import WRITING  # lazily: only some commands need torch
    from llmasos.preparation import load_prepared
    from llmasos.simulation.final_model import export_final

    if out.exists():
        raise UsageError(f"{out} exists; it is not overwritten.", "Name another --out.")
    loaded = load_prepared(prepared)
    export_final(loaded, tensors, out)
    head = loaded.draft.plan.task.head
    use = f'llmasos generate {out} "TEXT"' if head in WRITING else f"llmasos evaluate {out} DATA --plan PLAN.yaml"
    data = {"folder": str(out), "run": loaded.draft.run, "head": head}
    Terminal(output).result(f"{out}: {loaded.draft.run}, {head}.\n\nNext: {use}", data=data, quiet=str(out))


@app.command()
def measure(
    prepared: Annotated[Path, typer.Argument(help="Folder that `plan prepare` made.", show_default=False)],
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Steps to time, after one to warm up.")] = 3,
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=1024, help="CPU threads, as worker.threads of a participant.")
    ] = 1,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Train a few steps on random tokens: seconds a step, tokens a second, memory. Nothing is kept."""
    terminal = Terminal(output)
    terminal.progress(f"training {steps + 1} steps of {prepared}")
    from llmasos.measuring import measure_plan  # lazily: needs torch

    measured = measure_plan(prepared, steps=steps, threads=threads)
    human = (
        f"device      {measured.device}, {threads} {'thread' if threads == 1 else 'threads'}\n"
        f"a step      {measured.seconds_per_step:.3f} s ({measured.tokens_per_second:,.0f} tokens/s)\n"
        f"a round     {measured.seconds_per_round:,.1f} s of training\n"
        f"memory      {measured.peak_memory_bytes / 1e6:,.0f} MB at most"
    )
    if measured.peak_device_bytes:
        human += f", and {measured.peak_device_bytes / 1e6:,.0f} MB of the GPU's"
    terminal.result(human, data=dataclasses.asdict(measured), quiet=f"{measured.seconds_per_step:.6f}")


def overrides(settings: list[str] | None) -> dict[str, object]:
    """`["local.steps=50"]` as overrides for `load_plan`; values are read as YAML.

    Raises:
        UsageError: no `=` in one.
    """
    return dict(_setting(text) for text in settings or [])


def _setting(text: str) -> tuple[str, object]:
    field, sign, value = text.partition("=")
    if not sign or not field:
        raise UsageError(f"--set expected FIELD=VALUE, got {text!r}.")
    return field, strict_yaml.read(value, source=f"--set {field}").value


# --- writing -------------------------------------------------------------------------------------------------------------


def _data(plan: Plan) -> object:
    return plan.model_dump(mode="json")


def _in_words(explanation: Explanation) -> str:
    lines: list[str] = []
    section: str | None = None
    for row in explanation.rows:
        if row.section != section:
            section = row.section
            lines += ["", f"{section or 'plan'}"]
        lines += _row_lines(row)
    lines += ["", "What follows from it"]
    for number in explanation.derived:
        lines += [f"  {number.name}: {number.value}", *_wrapped(number.meaning, "      ")]
    lines += ["", "What happens in a round"]
    for position, sentence in enumerate(explanation.prose, start=1):
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=f"  {position}. ", subsequent_indent="     ")
    return "\n".join(lines).strip("\n")


def _row_lines(row: Row) -> list[str]:
    mark = "  (default)" if row.is_default else ""
    return [f"  {row.field}: {row.value}{mark}", *_wrapped(row.meaning, "      ")]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
