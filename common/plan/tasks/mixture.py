"""Several tasks on one model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.names import Name
from common.plan.fields import Number, PlanSection
from common.plan.tasks.base import TaskSection
from common.plan.tasks.single import TASK_TYPES, Preference, SingleTask


class Part(PlanSection):
    """One task of a mixture."""

    weight: Annotated[
        Number, Field(gt=0, le=1_000_000, description="Its share of the rows, beside the others' weights.")
    ]
    task: SingleTask
    name: Annotated[
        Name | None,
        Field(
            description="Where institutions are to say which data are for it, beside another of its type; null: its type."
        ),
    ] = None

    @property
    def names(self) -> frozenset[str]:
        """As TaskSection.names."""
        return self.task.names if self.name is None else self.task.names | {self.name}

    def takes(self, names: Collection[str]) -> bool:
        """As TaskSection.takes."""
        return not names or not self.names.isdisjoint(names)


class Mixture(TaskSection):
    """Several tasks on one model, row by row, by weights (arXiv:1910.10683, section 3.5.2)."""

    type: Literal["mixture"] = "mixture"
    tasks: Annotated[
        tuple[Part, ...],
        Field(
            min_length=2, max_length=32, description="The tasks and their weights; all with the same head of the model."
        ),
    ]

    @property
    def head(self) -> str:
        return self.tasks[0].task.head

    @property
    def num_labels(self) -> int | None:
        return self.tasks[0].task.num_labels

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(token for part in self.tasks for token in part.task.special_tokens))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for part in self.tasks for name in part.names)

    @model_validator(mode="after")
    def _rows_go_together(self) -> Mixture:
        heads = sorted({part.task.head for part in self.tasks})
        if len(heads) > 1:
            raise ValueError(f"the tasks of a mixture must share a head of the model, got {', '.join(heads)}")
        if any(isinstance(part.task, Preference) for part in self.tasks):
            raise ValueError(
                "task preference cannot be part of a mixture: its rows are pairs; run it after the mixture"
            )
        labels = {part.task.num_labels for part in self.tasks}
        if len(labels) > 1:
            raise ValueError("the tasks of a mixture must have the same number of labels")
        named = [part.name for part in self.tasks if part.name is not None]
        taken = sorted({name for name in named if name in TASK_TYPES or named.count(name) > 1})
        if taken:
            raise ValueError(f"the name {taken[0]!r} of a task in a mixture is another's, or a type of task")
        running = [part.task.type for part in self.tasks if not part.task.field_names]
        if len(running) > 1:
            raise ValueError(f"a mixture can have one task on running text, got {', '.join(running)}")
        return self
