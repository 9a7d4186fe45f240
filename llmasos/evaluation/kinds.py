"""What a model folder can be measured by: from what it ends in (config.json) and what it was fitted to (llmasos.json).

causal-lm                  causal-lm on text, or what it was fitted to: instruction
masked-lm, pre-training    masked-lm on text: the loss and accuracy of hidden tokens
seq2seq-lm                 seq2seq on records
sequence-classification    sequence-classification on records; without a note, labels as config.json names them
question-answering         question-answering on records
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from common.errors import UsageError
from common.plan.tasks import Preference, SequenceClassification, SingleTask, Task
from llmasos.language_model.sections import read_config

if TYPE_CHECKING:
    from llmasos.language_model.storing import Stored

_TASKS: Mapping[str, Mapping[str, Any]] = {
    "causal-lm": {"type": "causal-lm"},
    "masked-lm": {"type": "masked-lm"},
    "pre-training": {"type": "masked-lm", "next_sentence": True},
    "seq2seq-lm": {"type": "seq2seq"},
    "sequence-classification": {"type": "sequence-classification"},
    "question-answering": {"type": "question-answering"},
}
"""By head."""
_UNNAMED_LABEL = re.compile(r"^LABEL_(\d+)$")


def task_for(stored: Stored, wanted: Task | str | None) -> Task:
    """How data are read for the model in a folder.

    Args:
        wanted: a plan's task, or the type of one; None: what the model was fitted to, else what its head is for.

    Raises:
        UsageError: the model ends in another head than the task needs, or tells apart another number of labels; or there is no
            such task.
    """
    note = stored.card.task
    if wanted is None:
        told = note is not None and note.head == stored.head and not isinstance(note, Preference)
        task = note if note is not None and told else _of_type(stored, None)
    elif isinstance(wanted, str):
        task = note if note is not None and note.type == wanted else _of_type(stored, wanted)
    else:
        task = wanted
    _check(stored, task)
    return task


def _check(stored: Stored, task: Task) -> None:
    named = f"{stored.folder} holds a {stored.card.kind}"
    if isinstance(task, Preference):
        raise UsageError(
            f"{named}, and task preference is measured against the model without its adapter, which no folder holds any more.",
            "Measure it in memory, model.evaluate(…), or by another task.",
        )
    if task.head != stored.head:
        raise UsageError(
            f"{named} that ends in {stored.head}, task {task.type} needs {task.head}.",
            f"Measure it as {_TASKS[stored.head]['type']}, which is what it is without --task and --plan.",
        )
    if task.num_labels != stored.num_labels:
        raise UsageError(
            f"{named} that tells {stored.num_labels} labels apart, task {task.type} names {task.num_labels}.",
            "Name the plan that it was trained with: --plan PLAN.yaml.",
        )


def _of_type(stored: Stored, wanted: str | None) -> Task:
    """A task with the fields that it has by default."""
    given: dict[str, Any] = (
        dict(_TASKS[stored.head]) if wanted in (None, _TASKS[stored.head]["type"]) else {"type": wanted}
    )
    if given["type"] == SequenceClassification.model_fields["type"].default:
        given["labels"] = _labels(stored)
    try:
        task: Task = TypeAdapter(SingleTask).validate_python(given)
    except ValidationError as err:
        types = sorted({str(one["type"]) for one in _TASKS.values()} | {"instruction"})
        raise UsageError(
            f"A model cannot be measured by task {str(wanted)[:40]!r}, expected one of {', '.join(types)}.",
            "Name a plan for a task with fields of its own: --plan PLAN.yaml.",
        ) from err
    return task


def _labels(stored: Stored) -> list[str]:
    """As config.json names them; where it does not, their numbers."""
    named = read_config(stored.folder).get("id2label") or {}
    labels = [str(named.get(str(number), number)) for number in range(stored.num_labels or 2)]
    return [_UNNAMED_LABEL.sub(r"\1", label) for label in labels]
