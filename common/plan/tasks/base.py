"""What every task's section says of itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import Annotated

from pydantic import Field, model_validator

from common.plan.fields import PlanSection

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
"""Special tokens: padding, the beginning of a row, the end of a text in it, and what stands for a hidden token."""

FieldName = Annotated[str, Field(min_length=1, max_length=200)]
"""A field of .jsonl and .csv records."""


class TaskSection(PlanSection):
    """Base of every task's section."""

    type: str

    @property
    @abstractmethod
    def head(self) -> str:
        """What the model must end in, as an architecture's `heads` names it."""

    @property
    def num_labels(self) -> int | None:
        """How many classes the head tells apart; None where it predicts tokens or places."""
        return None

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """What the tokenizer must have besides `<|endoftext|>`; `plan prepare` adds them where it makes one."""
        return ()

    @property
    def names(self) -> frozenset[str]:
        """What an institution may call it to say which data sets are for it: its type, and a name that the plan gives it."""
        return frozenset({self.type})

    def takes(self, names: Collection[str]) -> bool:
        """Whether it may learn from a data set that is for tasks of these names; of none: for every one."""
        return not names or not self.names.isdisjoint(names)

    @model_validator(mode="after")
    def _fields_are_distinct(self) -> TaskSection:
        names = self.field_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task {self.type} names field {twice[0]!r} twice")
        return self

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields of records that it reads; none: it reads plain text."""
        return ()
