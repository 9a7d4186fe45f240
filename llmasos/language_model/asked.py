"""What a fit is asked for, made out from its arguments and its data: the split, the task, how many steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from common.plan.model import Plan
from common.plan.tasks import CausalLM, Task
from llmasos.datasets.loading import Dataset, Split
from llmasos.losses import CrossEntropyLoss, Loss

if TYPE_CHECKING:
    from llmasos.evaluation.causal import CountedText
    from llmasos.language_model.fitting import Progress


def split_of(data: Any, who: str) -> Split:
    if isinstance(data, Split):
        return data
    what = "a whole dataset" if isinstance(data, Dataset) else f"a {type(data).__name__}"
    raise UsageError(f"{who} expects one split, got {what}.", "Name one, as in model.fit(data.train).")


def task_of(data: Split, loss: Loss | None, default: str | Task) -> dict[str, Any]:
    """The fields of a plan's `task`: the data's if they were loaded for one, else the loss's.

    Raises:
        UsageError: the loss is for another task than the data.
    """
    general = default if isinstance(default, str) else default.type
    asked = dict((loss or CrossEntropyLoss()).task(general))
    if data.task is None:
        return default.model_dump(mode="json") if not isinstance(default, str) and asked == {"type": general} else asked
    if asked["type"] not in (general, data.task.type):
        raise UsageError(
            f"The data were loaded for task {data.task.type}, the loss is for {asked['type']}.",
            "Leave the loss out, or load the data for its task.",
        )
    return data.task.model_dump(mode="json")


def steps_an_epoch(data: Split, plan: Plan) -> int:
    """Steps in which as many tokens are trained on as the split's text has, or as many rows as its records became.

    Raises:
        TooLittleData: there is less than one sequence, or nothing to learn in any record.
    """
    found, local = data.written(plan), plan.local
    if plan.task.field_names:
        if not found.rows:
            raise TooLittleData(
                f"None of the {len(data):,} records of the split {data.name} of {data.source} holds anything to learn for "
                f"task {plan.task.type} within a sequence_length of {local.sequence_length:,}.",
                "Give fit a longer sequence_length, or more records.",
            )
        return math.ceil(found.rows / local.batch_size)
    if found.tokens <= local.sequence_length:
        raise TooLittleData(
            f"The split {data.name} of {data.source} holds {found.tokens:,} tokens, one sequence needs "
            f"{local.sequence_length + 1:,}.",
            "Give fit a smaller sequence_length, or more text.",
        )
    return math.ceil(found.tokens / (local.batch_size * local.sequence_length))


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
