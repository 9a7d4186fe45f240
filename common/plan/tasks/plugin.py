"""A task of somebody else's package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.tasks.base import TaskSection


class Plugin(TaskSection):
    """A task that institutions install themselves: an entry point of group llmasos.tasks, where their policy allows it."""

    type: Literal["plugin"] = "plugin"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="The entry point's name.")]
    version: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+!-]{0,99}$",
            description="Exact version of the distribution that it is in.",
        ),
    ]
    model_head: Annotated[
        Literal[
            "causal-lm", "masked-lm", "pre-training", "seq2seq-lm", "sequence-classification", "question-answering"
        ],
        Field(description="What the model must end in."),
    ]
    classes: Annotated[
        int | None, Field(ge=2, le=10_000, description="How many, with head sequence-classification.")
    ] = None
    tokens: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
        Field(max_length=100, description="Special tokens that its tokenizer must have."),
    ] = ()
    options: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=100)],
            Annotated[str, Field(max_length=1000)] | Annotated[int, Field(gt=-(2**53), lt=2**53)] | bool,
        ],
        Field(max_length=100, description="What it is told: texts and whole numbers, never code."),
    ] = {}  # noqa: RUF012  pydantic copies it

    @property
    def head(self) -> str:
        return self.model_head

    @property
    def num_labels(self) -> int | None:
        return self.classes

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.tokens

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.type, self.name})

    @property
    def pinned(self) -> str:
        """As a policy names it: name==version."""
        return f"{self.name}=={self.version}"

    @model_validator(mode="after")
    def _classes_are_for_classification(self) -> Plugin:
        if (self.classes is not None) != (self.model_head == "sequence-classification"):
            raise ValueError("task.classes goes with model_head sequence-classification, and only with it")
        return self
