"""`llmasos evaluate`: a model folder on held-out text, against references, and on lm-eval's tasks."""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import UsageError
from common.terminal import FormatOption, OutputFormat, Terminal, table

if TYPE_CHECKING:
    from llmasos.evaluation.folder import Evaluation, Scores
    from llmasos.evaluation.harness import TaskScores
    from llmasos.evaluation.metrics import Likelihood
    from llmasos.evaluation.references import ReferenceScores

HEADINGS = ("text", "model", "tokens", "ppl/tok", "ppl/word", "ppl/byte", "bits/byte", "acc.")


class BleuTokenize(StrEnum):
    """sacrebleu's tokenizers that need no other package."""

    V13A = "13a"
    INTL = "intl"
    ZH = "zh"
    CHAR = "char"
    NONE = "none"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as in out/demo/model.", show_default=False)],
    data: Annotated[Path | None, typer.Argument(help="Folder or file of held-out text.", show_default=False)] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Read DATA as this plan's task does: F1 of labels, exact match of answers.")
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
    references: Annotated[
        Path | None,
        typer.Option(help="JSONL of prompt (or source) and reference: BLEU, chrF, ROUGE of what it writes."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="With --references.")] = 64,
    first_line: Annotated[bool, typer.Option(help="With --references: only the first line written counts.")] = False,
    bleu_tokenize: Annotated[
        BleuTokenize, typer.Option(help="With --references: zh for Chinese, char for any script.")
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
    """Measure a model: perplexity, bits per byte by language, accuracy, beside an n-gram model; with intervals."""
    from llmasos.simulation.cores import usable_cores

    if data is None and references is None and lm_eval is None:
        raise UsageError("There is nothing to measure on.", "Name a folder of text, --references or --lm-eval.")
    terminal, cores = Terminal(output), threads or usable_cores()
    found: dict[str, Any] = {"model": str(model)}
    if plan is not None:
        if data is None or language_field or max_tokens or sequence_length or ngram_text:
            raise UsageError(
                "--plan takes DATA, and not --language-field, --max-tokens, --sequence-length or --ngram-text.",
                "The plan says what a sequence is, and all of DATA is measured.",
            )
        from common.plan.load import load_plan
        from llmasos.evaluation.task import evaluate_task

        terminal.progress(f"measuring {model} on {data}")
        wanted, size = load_plan(plan), batch_size
        on_task = evaluate_task(model, data, wanted, text_column=text_column, batch_size=size, threads=cores)
        found |= {"task": wanted.task.type, **_plain(on_task.to_dict())}
        if output is OutputFormat.HUMAN:
            terminal.result(_task_table(found), data=None)
    elif data is not None:
        from llmasos.evaluation.folder import EvaluationOptions
        from llmasos.evaluation.folder import evaluate as evaluate_folder

        terminal.progress(f"measuring {model} on {data}")
        options = EvaluationOptions(
            text_column=text_column,
            language_field=language_field,
            sequence_length=sequence_length,
            max_tokens=max_tokens,
            batch_size=batch_size,
            seed=seed,
            threads=cores,
            ngram=ngram,
            ngram_text=ngram_text,
        )
        evaluation = evaluate_folder(model, data, options)
        found |= as_json(evaluation)
        if output is OutputFormat.HUMAN:
            terminal.result(_table(evaluation), data=None)
            terminal.result(_in_words(evaluation), data=None)
    if references is not None:
        from llmasos.evaluation.references import WritingOptions, evaluate_references, read_examples

        examples = read_examples(references)
        terminal.progress(f"writing after {len(examples):,} prompts")
        writing = WritingOptions(max_new_tokens, first_line, bleu_tokenize.value, cores)
        scores = evaluate_references(model, examples, writing)
        found["references"] = _plain(dataclasses.asdict(scores))
        if output is OutputFormat.HUMAN:
            terminal.result(_reference_text(scores), data=None)
    if lm_eval is not None:
        from llmasos.evaluation.harness import run_tasks

        terminal.progress(f"running the tasks in {lm_eval}")
        tasks = run_tasks(model, lm_eval, limit=limit, batch_size=batch_size, threads=cores)
        found["lm_eval"] = _plain({name: dataclasses.asdict(one) for name, one in tasks.items()})
        if output is OutputFormat.HUMAN:
            terminal.result(_task_text(tasks), data=None)
    if output is not OutputFormat.HUMAN:
        terminal.result("", data=found, quiet=_quiet(found))


def as_json(found: Evaluation) -> dict[str, Any]:
    """An evaluation for programs; numbers that are not there are null."""
    intervals = {
        "perplexity": found.perplexity_interval,
        "bits_per_byte": found.bits_per_byte_interval,
        "accuracy": found.accuracy_interval,
    }
    value = {
        **_row(found.whole),
        "languages": {name: _row(one) for name, one in found.languages.items()},
        "intervals": {name: dataclasses.asdict(one) if one else None for name, one in intervals.items()},
        "interval_unit": found.interval_unit,
        "ngram_model": {"order": found.ngram_order, "counted_tokens": found.ngram_tokens, "text": found.ngram_text},
        "tokens_per_second": found.tokens_per_second,
        "sequence_length": found.sequence_length,
        "device": found.device,
    }
    plain: dict[str, Any] = _plain(value)
    return plain


def _row(scores: Scores) -> dict[str, Any]:
    return {
        "documents": scores.documents,
        **_numbers(scores.model),
        "accuracy": scores.accuracy,
        "ngram": None if scores.ngram is None else _numbers(scores.ngram),
    }


def _numbers(one: Likelihood) -> dict[str, Any]:
    return {
        "tokens": one.tokens,
        "words": one.words,
        "bytes": one.text_bytes,
        "loss": one.loss,
        "perplexity": one.token_perplexity,
        "word_perplexity": one.word_perplexity,
        "byte_perplexity": one.byte_perplexity,
        "bits_per_byte": one.bits_per_byte,
    }


def _plain(value: Any) -> Any:
    """Without numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _quiet(found: dict[str, Any]) -> str | None:
    """Of text its bits per byte, of another task its loss; else BLEU."""
    if found.get("bits_per_byte") is None and "loss" in found:
        return f"{found['loss']:.6f}"
    if "bits_per_byte" in found:
        return f"{found['bits_per_byte']:.6f}"
    return f"{found['references']['bleu']['value']:.4f}" if "references" in found else None


# --- for people ----------------------------------------------------------------------------------------------------------


def _table(found: Evaluation) -> Any:
    rows = []
    several = len(found.languages) > 1
    for name, scores in [*(found.languages.items() if several else ()), ("all", found.whole)]:
        rows.append((name, "model", *_cells(scores.model), f"{scores.accuracy:.3f}"))
        if scores.ngram is not None:
            rows.append(("", "n-gram", *_cells(scores.ngram), ""))
    return table(HEADINGS, rows, right=frozenset(HEADINGS[2:]))


def _task_table(found: dict[str, Any]) -> Any:
    said = {name: value for name, value in found.items() if name not in ("model", "split") and value is not None}
    cells = [(name, f"{value:,.4f}" if isinstance(value, float) else f"{value}") for name, value in said.items()]
    return table(("measure", "value"), cells, right=frozenset({"value"}))


def _cells(one: Likelihood) -> tuple[str, ...]:
    return (
        f"{one.tokens:,}",
        f"{one.token_perplexity:,.4g}",
        f"{one.word_perplexity:,.3g}",
        f"{one.byte_perplexity:,.4g}",
        f"{one.bits_per_byte:.4f}",
    )


def _in_words(found: Evaluation) -> str:
    model = found.whole.model
    lines = [
        "",
        f"loss         {model.loss:.4f} nats a token: {found.whole.documents:,} documents, {model.text_bytes:,} bytes, windows "
        f"of {found.sequence_length:,} tokens",
    ]
    named = (
        ("ppl/token", found.perplexity_interval),
        ("bits/byte", found.bits_per_byte_interval),
        ("accuracy", found.accuracy_interval),
    )
    for name, interval in named:
        if interval is not None:
            lines.append(f"{name:<12} {interval} in {interval.confidence:.0%} of samples of the {found.interval_unit}")
    if found.ngram_order is not None:
        lines.append(
            f"n-gram       modified Kneser-Ney of order {found.ngram_order}, counted on {found.ngram_text} "
            f"({found.ngram_tokens:,} tokens)"
        )
    lines.append(f"speed        {found.tokens_per_second:,.0f} tokens/s on {found.device}")
    return "\n".join(lines)


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
