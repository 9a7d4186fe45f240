"""What a fit is asked for, made out from its arguments and its data: the split, the task, how many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from common.plan.model import Plan
from common.plan.tasks import CausalLM, Mixture, Task
from llmasos.datasets.loading import Dataset, Split, reads_records
from llmasos.language_model.settings import LoggingSettings, TrainingSettings
from llmasos.losses import CrossEntropyLoss, Loss
from llmasos.optimizers import AdamW, Optimizer

if TYPE_CHECKING:
    from llmasos.evaluation.causal import CountedText
    from llmasos.language_model.fitting import Progress
    from llmasos.tasks.base import Written


@dataclass(frozen=True, slots=True)
class Watched:
    """Who is told of a fit, and when, as it was asked for: `eval_steps` where `logging` names none."""

    validation: Split | None
    logging: LoggingSettings
    eval_steps: int
    progress_bar: bool | None


def settings_of(
    training: TrainingSettings | None, logging: LoggingSettings | None
) -> tuple[TrainingSettings, LoggingSettings]:
    """Both, by default with their defaults.

    Raises:
        UsageError: something else.
    """
    for name, given, kind in (("training", training, TrainingSettings), ("logging", logging, LoggingSettings)):
        if given is not None and not isinstance(given, kind):
            raise UsageError(
                f"fit's {name} is a {type(given).__name__}, expected {kind.__name__}.",
                f"As in fit(…, {name}=llmasos.{kind.__name__}()).",
            )
    return training or TrainingSettings(), logging or LoggingSettings()


def optimizer_of(given: Any) -> Optimizer:
    """An optimizer of llmasos.optimizers, AdamW by default.

    Raises:
        UsageError: something else, a class or torch's own.
    """
    if given is None:
        return AdamW()
    if isinstance(given, type) or not hasattr(given, "section"):
        raise _other("optimizer", given, "llmasos.optimizers", "Adam(lr=3e-4)")
    optimizer: Optimizer = given
    return optimizer


def _other(what: str, given: Any, module: str, example: str) -> UsageError:
    got = (
        f"the class {given.__name__}"
        if isinstance(given, type)
        else f"a {type(given).__module__}.{type(given).__name__}"
    )
    got = got.replace("a builtins.", "a ")
    return UsageError(f"The {what} is {got}, expected one of {module}.", f"As in {module}.{example}.")


def split_of(data: Any, who: str) -> Split:
    if isinstance(data, Split):
        return data
    what = "a whole dataset" if isinstance(data, Dataset) else f"a {type(data).__name__}"
    raise UsageError(f"{who} expects one split, got {what}.", "Name one, as in model.fit(data.train).")


def task_of(data: Split, loss: Loss | None, *, made_for: str, fitted: Task | None = None) -> dict[str, Any]:
    """The fields of a plan's `task`: the data's if they were loaded for one, else the loss's, or what the model was fitted to.

    Args:
        made_for: the type of task that the architecture is for.
        fitted: what it was fitted to; of no use for plain text where it reads records.

    Raises:
        UsageError: the loss is none of llmasos.losses, or for another task than the data; or plain text is not enough.
    """
    if isinstance(loss, type) or not (loss is None or hasattr(loss, "task")):
        raise _other("loss", loss, "llmasos.losses", "CrossEntropyLoss()")
    known = fitted if fitted is not None and not reads_records(fitted) else None
    asked = dict((loss or CrossEntropyLoss()).task(made_for if known is None else known.type))
    if data.task is not None:
        _check_loss(asked, data.task, made_for)
        return data.task.model_dump(mode="json")
    if asked["type"] == "seq2seq":
        raise UsageError(
            f"The split {data.name} of {data.source} was loaded as plain text, and task seq2seq reads records with "
            "a source and a target.",
            "Load it for that: load_dataset(…, task='seq2seq').",
        )
    return known.model_dump(mode="json") if known is not None and asked == {"type": known.type} else asked


def _check_loss(asked: Mapping[str, Any], task: Task, made_for: str) -> None:
    fields = asked if asked["type"] == task.type else {}
    said = {name: Decimal(str(value)) if isinstance(value, float) else value for name, value in fields.items()}
    differ = [name for name, value in said.items() if getattr(task, name) != value]
    if not fields and asked["type"] != made_for:
        raise UsageError(
            f"The data were loaded for task {task.type}, the loss is for {asked['type']}.",
            "Leave the loss out, or load the data for its task.",
        )
    if differ:
        raise UsageError(
            f"The data were loaded with {differ[0]} {getattr(task, differ[0])}, the loss says {fields[differ[0]]}.",
            "Leave the loss out, or load the data without a task.",
        )


def steps_an_epoch(data: Split, plan: Plan) -> int:
    """Steps in which as many tokens are trained on as the split's text has, or as many rows as its records became.

    Of a mixture, as many rows as its tasks have together, whichever are drawn.

    Raises:
        TooLittleData: there is less than one sequence, or nothing to learn in any record.
    """
    found, local = data.written(plan), plan.local
    if not isinstance(plan.task, Mixture):
        return math.ceil(_sequences(found, plan.task, data, local.sequence_length) / local.batch_size)
    own = zip(found.parts, plan.task.tasks, strict=True)
    there = [_sequences(part, one.task, data, local.sequence_length) for part, one in own if part.documents]
    return math.ceil(sum(there) / local.batch_size)


def _sequences(found: Written, task: Task, data: Split, sequence_length: int) -> Fraction:
    """Rows of records, or windows of text."""
    if task.field_names:
        if not found.rows:
            raise TooLittleData(
                f"None of the {found.documents:,} records of the split {data.name} of {data.source} holds anything to learn "
                f"for task {task.type} within a sequence_length of {sequence_length:,}.",
                "Give fit a longer sequence_length, or more records.",
            )
        return Fraction(found.rows)
    if found.tokens <= sequence_length:
        raise TooLittleData(
            f"The split {data.name} of {data.source} holds {found.tokens:,} tokens, one sequence needs "
            f"{sequence_length + 1:,}.",
            "Give fit a smaller sequence_length, or more text.",
        )
    return Fraction(found.tokens, sequence_length)


def steps_of(epochs: float | None, steps: int | None, an_epoch: int) -> int:
    if epochs is not None and steps is not None:
        raise InvalidConfiguration("fit got both epochs and steps.", "Give one of the two.")
    wanted = steps if steps is not None else math.ceil((1 if epochs is None else epochs) * an_epoch)
    if wanted < 1:
        raise InvalidConfiguration(
            f"fit would train {wanted} steps, expected at least 1.", "Give more epochs or steps."
        )
    return wanted


def check_optimizer(before: Progress | None, plan: Plan) -> None:
    if before is not None and before.optimizer != plan.local.optimizer.type:
        raise UsageError(
            f"The fit to resume trained with {before.optimizer}, now {plan.local.optimizer.type} was given.",
            "Resume with the same optimizer.",
        )


def counted_text(ngram: Split | bool, task: Task) -> CountedText | None:
    """What `evaluate` was asked to count.

    Raises:
        UsageError: the task does not predict a text, or the split holds records.
    """
    from llmasos.datasets.text import Document
    from llmasos.evaluation.causal import CountedText

    if ngram is False:
        return None
    if not isinstance(task, CausalLM):
        raise UsageError(f"An n-gram model stands beside task causal-lm, got {task.type}.", "Leave ngram out.")
    if ngram is True:
        return CountedText()
    split = split_of(ngram, "evaluate's ngram")
    documents = [thing for thing in split.things if isinstance(thing, Document)]
    if len(documents) < len(split):
        raise UsageError(
            f"evaluate's ngram is a split of records for task {split.task and split.task.type}, not of text."
        )
    return CountedText(documents, f"{split.name} of {split.source}")
