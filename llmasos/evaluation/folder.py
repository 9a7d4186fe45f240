"""A model folder measured on a folder of data: what `llmasos evaluate` prints.

found = evaluate(Path("out/demo/model"), Path("held-out"))
found.bits_per_byte, found.whole.ngram.bits_per_byte, found.intervals["bits_per_byte"]
found.languages["de"].model.word_perplexity

Any model of ours or of transformers that this release knows: llmasos.evaluation.kinds says what it is measured by.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.model import Plan
from common.plan.tasks import CausalLM, Task
from llmasos.evaluation.documents import TextSource, read_source, sampled
from llmasos.evaluation.measured import Evaluation
from llmasos.evaluation.overlap import BleuTokenizer
from llmasos.extras import require_train
from llmasos.tokenizers import vocab_size_of
from llmasos.tokenizers.special import check_special

if TYPE_CHECKING:
    from llmasos.datasets.loading import Split
    from llmasos.evaluation.causal import CountedText
    from llmasos.language_model.storing import Stored

ALL = "all"
"""The split's name: all of the data."""
SHORTEST = 8
"""Tokens of a window or row, as in a plan."""
LONGEST_ROW = 512
"""Tokens of a row, where a model reads longer ones and nobody says how long: rows are filled up to one width."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How data are measured."""

    text_column: str | None = None
    language_field: str | None = None
    """Field of .jsonl and .csv files; else the first folder in a file's path is its language."""
    task: str | None = None
    """Type of a plan's `task`; by default what the model was fitted to, or what it ends in."""
    sequence_length: int | None = None
    """Tokens a window or row; at most, and by default, the model's context."""
    max_tokens: int | None = None
    """Measure only documents with about so many tokens, drawn by `seed`."""
    held_out: bool = False
    """Measure only what the plan holds out of the data, as an institution's worker does; with a plan."""
    unit_field: str | None = None
    """With `held_out`: the field that the institution's data set has for units, which are never divided."""
    batch_size: int = 16
    seed: int = 0
    threads: int = 1
    ngram: bool = True
    ngram_text: Path | None = None
    """Text for the n-gram model to count; without it, other parts of the measured text."""
    texts: int = 100
    """Of seq2seq data, so many targets of each language are written and scored by BLEU, chrF and ROUGE; 0: none."""
    bleu_tokenizer: BleuTokenizer = "13a"


def evaluate(
    model_dir: Path, data: Path, options: EvaluationOptions | None = None, *, plan: Plan | None = None
) -> Evaluation:
    """Measure the model in `model_dir`, in Hugging Face layout, on all documents or records of `data`.

    Args:
        plan: data are read as its task reads them, in rows of its `local.sequence_length`; nothing else of it counts.

    Raises:
        UsageError: no such model or folder, a setting out of range, or a model that ends in another head than the task needs.
        TooLittleData, UnreadableData, StorageFailure: about the data.
        WorkerFailed: the model's loss is not finite.
        MissingExtra: torch, transformers or tokenizers are not installed; or sacrebleu, where targets are written.
    """
    require_train("torch", "transformers", "tokenizers", task="evaluate a model")
    from llmasos.evaluation.answers import Writing
    from llmasos.evaluation.kinds import task_for
    from llmasos.evaluation.measure import MeasureOptions, by_folder, by_unit, measure
    from llmasos.generation import load_module
    from llmasos.language_model.storing import read
    from llmasos.models.prompts import virtual_tokens
    from llmasos.training.device import set_up

    options = options or EvaluationOptions()
    machine = set_up(options.threads)
    stored = read(model_dir)
    task = task_for(stored, plan.task if plan is not None else options.task)
    model: Any = load_module(model_dir, stored.head)
    context = stored.section.context_tokens - virtual_tokens(model)
    _check_tokens(stored, task)
    settled = _plan(stored, task, _length(task, context, options, plan))
    measuring = MeasureOptions(
        batch_size=options.batch_size,
        seed=options.seed,
        ngram=_counted(options) if isinstance(task, CausalLM) else None,
        writing=Writing(options.texts, options.bleu_tokenizer),
        language=by_folder if options.held_out else by_unit,
    )
    split = _held_out(data, stored, plan, options) if options.held_out else _split(data, stored, task, options)
    return measure(model.to(machine.device), split, settled, measuring)


def _length(task: Task, context: int, options: EvaluationOptions, plan: Plan | None) -> int:
    """Tokens a window, or the width of a row."""
    if options.batch_size < 1:
        raise UsageError(f"batch_size is {options.batch_size}, expected 1 or more.")
    length = context if isinstance(task, CausalLM) else min(context, LONGEST_ROW)
    if plan is not None:
        length = plan.local.sequence_length
    elif options.sequence_length is not None:
        length = options.sequence_length
    if not SHORTEST <= length <= context:
        raise UsageError(f"sequence_length is {length}, expected {SHORTEST} to {context}, the model's context.")
    return length


def _plan(stored: Stored, task: Task, length: int) -> Plan:
    """A plan of this model and task; of it, what a row is matters alone."""
    from llmasos.language_model.planning import Settings, plan_of
    from llmasos.optimizers import AdamW

    settings = Settings(steps=1, batch_size=1, sequence_length=length, optimizer=AdamW().section())
    return plan_of(settings, model=stored.section, task=task.model_dump(mode="json"))


def _split(data: Path, stored: Stored, task: Task, options: EvaluationOptions) -> Split:
    """All of the data; of text perhaps a sample."""
    from llmasos.datasets.loading import DataFolder, Split, load_dataset

    if not task.field_names:
        source = TextSource(data, options.text_column, options.language_field)
        documents = sampled(read_source(source), stored.tokenizer, options.max_tokens, options.seed)
        return Split(ALL, str(data), documents, None, stored.tokenizer, DataFolder(None))
    if options.max_tokens is not None or options.text_column is not None:
        raise UsageError(
            f"Task {task.type} reads records with fields, got max_tokens or text_column, which are for text.",
            "Leave them out; name fields in a plan: --plan PLAN.yaml.",
        )
    field = options.language_field
    return replace(
        load_dataset(data, stored.tokenizer, task=task, validation=0, test=0, unit_field=field).train, name=ALL
    )


def _held_out(data: Path, stored: Stored, plan: Plan | None, options: EvaluationOptions) -> Split:
    """What the plan holds out of one institution's data."""
    from llmasos.evaluation.held_out import held_out_split

    if plan is None or options.language_field is not None or options.max_tokens is not None:
        raise UsageError(
            "What is held out of data, a plan says; held_out got no plan, or language_field or max_tokens beside it.",
            "Name the plan that was trained with: --plan PLAN.yaml; and its data set's --unit-field, if it has one.",
        )
    column, field = options.text_column, options.unit_field
    return held_out_split(data, stored.tokenizer, plan, text_column=column, unit_field=field)


def _check_tokens(stored: Stored, task: Task) -> None:
    """
    Raises:
        UsageError: the tokenizer has more tokens than the model, or lacks special tokens that the task needs.
    """
    tokens = vocab_size_of(stored.tokenizer)
    if tokens > stored.vocab_size:
        raise UsageError(
            f"The tokenizer has {tokens} tokens, the model's embedding {stored.vocab_size}.",
            "Name a folder whose tokenizer.json is the one that the model was trained with.",
        )
    where = f"The tokenizer in {stored.folder}"
    check_special(stored.tokenizer, task.special_tokens, where=where, task=task.type)


def _counted(options: EvaluationOptions) -> CountedText | None:
    from llmasos.evaluation.causal import CountedText

    if not options.ngram:
        return None
    if options.ngram_text is None:
        return CountedText()
    return CountedText(read_source(TextSource(options.ngram_text, options.text_column)), str(options.ngram_text))
