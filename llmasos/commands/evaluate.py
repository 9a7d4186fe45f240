"""`llmasos evaluate`: a model folder on held-out data, against references, and on lm-eval's tasks."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import UsageError
from common.terminal import FormatOption, OutputFormat, Terminal
from llmasos.commands.evaluation_tables import show
from llmasos.evaluation.measured import plain_json

if TYPE_CHECKING:
    from common.plan.model import Plan
    from llmasos.evaluation.folder import EvaluationOptions
    from llmasos.evaluation.harness import TaskScores
    from llmasos.evaluation.references import ReferenceScores, WritingOptions


class BleuTokenize(StrEnum):
    """sacrebleu's tokenizers that need no other package."""

    V13A = "13a"
    INTL = "intl"
    ZH = "zh"
    CHAR = "char"
    NONE = "none"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as in out/demo/model.", show_default=False)],
    data: Annotated[
        Path | None, typer.Argument(help="Folder or file of held-out text or records.", show_default=False)
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Read DATA as this plan's task does.")] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="With --plan: only what it holds out of DATA, one institution's.")
    ] = False,
    unit_field: Annotated[
        str | None, typer.Option(help="With --held-out: the data set's unit field, as in `data add`.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Read DATA as this type of task does. Default: what the model was fitted to, or is made for."
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Field of .jsonl and .csv files that holds the text.")
    ] = None,
    language_field: Annotated[
        str | None,
        typer.Option(help="Their field with a document's language. Default: the first folder in a file's path."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Measure documents with about so many tokens, drawn by --seed.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a window. Default: the model's context.")
    ] = None,
    ngram_text: Annotated[
        Path | None, typer.Option(help="Text that the n-gram model counts. Default: other parts of DATA.")
    ] = None,
    ngram: Annotated[bool, typer.Option("--ngram/--no-ngram", help="Set an n-gram model beside it.")] = True,
    texts: Annotated[
        int, typer.Option(min=0, help="Of seq2seq data, targets of each language to write: BLEU, chrF, ROUGE.")
    ] = 100,
    references: Annotated[
        Path | None,
        typer.Option(help="JSONL of prompt (or source) and reference: BLEU, chrF, ROUGE of what it writes."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="With --references.")] = 64,
    first_line: Annotated[bool, typer.Option(help="With --references: only the first line written counts.")] = False,
    bleu_tokenize: Annotated[
        BleuTokenize, typer.Option(help="Of BLEU: zh for Chinese, char for any script.")
    ] = BleuTokenize.V13A,
    lm_eval: Annotated[
        Path | None, typer.Option(help="Folder of lm-eval's task files. They are programs: run only your own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --lm-eval: examples of each task.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of --max-tokens and of the confidence intervals.")] = 0,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Measure a model: perplexity, bits per byte, accuracy, F1 or BLEU, by language, with intervals, beside an n-gram model."""
    from llmasos.simulation.cores import usable_cores

    if data is None and references is None and lm_eval is None:
        raise UsageError("There is nothing to measure on.", "Name a folder of text, --references or --lm-eval.")
    terminal, cores = Terminal(output), threads or usable_cores()
    found: dict[str, Any] = {"model": str(model)}
    if data is not None:
        from llmasos.evaluation.folder import EvaluationOptions

        options = EvaluationOptions(
            text_column=text_column,
            language_field=language_field,
            task=task,
            sequence_length=sequence_length,
            max_tokens=max_tokens,
            held_out=held_out,
            unit_field=unit_field,
            batch_size=batch_size,
            seed=seed,
            threads=cores,
            ngram=ngram,
            ngram_text=ngram_text,
            texts=texts,
            bleu_tokenizer=bleu_tokenize.value,
        )
        found |= _on_data(terminal, model, data, options, _plan(plan, task, sequence_length))
    elif plan is not None or task is not None:
        raise UsageError("--plan and --task say how DATA are read, and there are none.", "Name a folder of data.")
    if references is not None:
        from llmasos.evaluation.references import WritingOptions

        writing = WritingOptions(max_new_tokens, first_line, bleu_tokenize.value, cores)
        found["references"] = _on_references(terminal, model, references, writing)
    if lm_eval is not None:
        found["lm_eval"] = _on_tasks(terminal, model, lm_eval, limit=limit, batch_size=batch_size, threads=cores)
    if output is not OutputFormat.HUMAN:
        terminal.result("", data=found, quiet=_quiet(found))


def _on_data(
    terminal: Terminal, model: Path, data: Path, options: EvaluationOptions, plan: Plan | None
) -> dict[str, Any]:
    from llmasos.evaluation.folder import evaluate as evaluate_folder

    terminal.progress(f"measuring {model} on {data}")
    evaluation = evaluate_folder(model, data, options, plan=plan)
    if terminal.output is OutputFormat.HUMAN:
        show(terminal, evaluation)
    return evaluation.report()


def _on_references(terminal: Terminal, model: Path, references: Path, options: WritingOptions) -> Any:
    from llmasos.evaluation.references import evaluate_references, read_examples

    examples = read_examples(references)
    terminal.progress(f"writing after {len(examples):,} prompts")
    scores = evaluate_references(model, examples, options)
    if terminal.output is OutputFormat.HUMAN:
        terminal.result(_reference_text(scores), data=None)
    return plain_json(dataclasses.asdict(scores))


def _on_tasks(
    terminal: Terminal, model: Path, folder: Path, *, limit: int | None, batch_size: int, threads: int
) -> Any:
    from llmasos.evaluation.harness import run_tasks

    terminal.progress(f"running the tasks in {folder}")
    tasks = run_tasks(model, folder, limit=limit, batch_size=batch_size, threads=threads)
    if terminal.output is OutputFormat.HUMAN:
        terminal.result(_task_text(tasks), data=None)
    return plain_json({name: dataclasses.asdict(one) for name, one in tasks.items()})


def _plan(path: Path | None, task: str | None, sequence_length: int | None) -> Plan | None:
    if path is None:
        return None
    if task is not None or sequence_length is not None:
        raise UsageError(
            "--plan says the task and what a sequence is, so that --task and --sequence-length do not go with it.",
            "Leave them out.",
        )
    from common.plan.load import load_plan

    return load_plan(path)


def _quiet(found: dict[str, Any]) -> str | None:
    """Of text its bits per byte, of another task its loss; else BLEU."""
    if found.get("bits_per_byte") is not None:
        return f"{found['bits_per_byte']:.6f}"
    if "loss" in found:
        return f"{found['loss']:.6f}"
    return f"{found['references']['bleu']['value']:.4f}" if "references" in found else None


def _reference_text(found: ReferenceScores) -> str:
    def with_interval(value: float, interval: object) -> str:
        return f"{value:8.4g}" + (f"   {interval}" if interval is not None else "")

    return "\n".join(
        (
            f"\n{found.examples:,} references",
            f"  BLEU         {with_interval(found.bleu.value, found.bleu.interval)}",
            f"  chrF2        {with_interval(found.chrf.value, found.chrf.interval)}",
            f"  ROUGE-1      {with_interval(found.rouge.rouge_1, None)}",
            f"  ROUGE-2      {with_interval(found.rouge.rouge_2, None)}",
            f"  ROUGE-L      {with_interval(found.rouge.rouge_l, found.rouge.rouge_l_interval)}",
            f"  exact match  {with_interval(found.answers.exact_match, found.answers.exact_match_interval)}",
            f"  token F1     {with_interval(found.answers.f1, found.answers.f1_interval)}",
            f"  {found.bleu.signature}",
        )
    )


def _task_text(tasks: dict[str, TaskScores]) -> str:
    lines = [""]
    for name, one in tasks.items():
        lines.append(f"{name} ({one.examples:,} examples)")
        lines += [f"  {key:<28} {value:.4f}" for key, value in one.numbers.items()]
    return "\n".join(lines)
