"""The plan's `task`: what the model learns from an institution's data, and which fields of its records that is in.

task: {type: causal-lm}
task: {type: seq2seq, source: german, target: english}
task: {type: sequence-classification, labels: [benign, malignant]}
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

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


class CausalLM(TaskSection):
    """Predict the next token."""

    type: Literal["causal-lm"] = "causal-lm"

    @property
    def head(self) -> str:
        return "causal-lm"


class Seq2Seq(TaskSection):
    """Write a target for a source: translation, summary (arXiv:1706.03762)."""

    type: Literal["seq2seq"] = "seq2seq"
    source: Annotated[FieldName, Field(description="Field of the text that the encoder reads.")] = "source"
    target: Annotated[FieldName, Field(description="Field of the text that is to be written.")] = "target"
    prefix: Annotated[
        str, Field(max_length=1000, description="Put before each source, as in 'summarize: ' (arXiv:1910.10683).")
    ] = ""

    @property
    def head(self) -> str:
        return "seq2seq-lm"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (PAD,)

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.source, self.target)


class SequenceClassification(TaskSection):
    """Say which of the labels a text has, or a pair of texts (arXiv:1810.04805, section 4.1)."""

    type: Literal["sequence-classification"] = "sequence-classification"
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...],
        Field(min_length=2, max_length=10_000, description="Every label, in the order of the model's outputs."),
    ]
    text: Annotated[FieldName, Field(description="Field of the text.")] = "text"
    text_pair: Annotated[FieldName | None, Field(description="Field of a second text, where pairs are judged.")] = None
    label: Annotated[FieldName, Field(description="Field of the label.")] = "label"

    @property
    def head(self) -> str:
        return "sequence-classification"

    @property
    def num_labels(self) -> int | None:
        return len(self.labels)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (PAD, CLS, SEP)

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.text, self.label) if self.text_pair is None else (self.text, self.text_pair, self.label)

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> SequenceClassification:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("task.labels names a label twice")
        return self


Task = Annotated[CausalLM | Seq2Seq | SequenceClassification, Field(discriminator="type")]
