"""One task: which fields of records it reads, which head and special tokens it needs."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.fields import Number
from common.plan.tasks.base import CLS, MASK, PAD, SEP, FieldName, TaskSection
from common.plan.tasks.chat import ChatTemplate


class CausalLM(TaskSection):
    """Predict the next token."""

    type: Literal["causal-lm"] = "causal-lm"

    @property
    def head(self) -> str:
        return "causal-lm"


class MaskedLM(TaskSection):
    """Find hidden tokens: of those drawn, 8 in 10 are hidden, 1 is another token, 1 stays (BERT, arXiv:1810.04805)."""

    type: Literal["masked-lm"] = "masked-lm"
    mask_fraction: Annotated[Number, Field(gt=0, lt=1, description="Share of the tokens that are to be found.")] = (
        Decimal("0.15")
    )
    next_sentence: Annotated[
        bool, Field(description="Also say whether the second half of a row follows the first in its document.")
    ] = False

    @property
    def head(self) -> str:
        return "pre-training" if self.next_sentence else "masked-lm"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (PAD, CLS, SEP, MASK)


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


class Instruction(TaskSection):
    """Answer as in conversations: the assistant's words alone are targets (arXiv:2203.02155, section 3.5)."""

    type: Literal["instruction"] = "instruction"
    messages: Annotated[
        FieldName,
        Field(description="Field of a conversation, [{role, content}, …]; or the next two, of a record without."),
    ] = "messages"
    prompt: Annotated[FieldName, Field(description="Field of what the user says.")] = "prompt"
    response: Annotated[FieldName, Field(description="Field of what the assistant answers.")] = "response"
    template: ChatTemplate = ChatTemplate()

    @property
    def head(self) -> str:
        return "causal-lm"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.template.special_tokens

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.messages, self.prompt, self.response)


class QuestionAnswering(TaskSection):
    """Find the answer to a question in a text: its first and its last token (arXiv:1606.05250)."""

    type: Literal["question-answering"] = "question-answering"
    question: Annotated[FieldName, Field(description="Field of the question.")] = "question"
    context: Annotated[FieldName, Field(description="Field of the text that may hold the answer.")] = "context"
    answer: Annotated[
        FieldName, Field(description="Field of the answer, word for word as in the context; empty: there is none.")
    ] = "answer"
    answer_start: Annotated[
        FieldName,
        Field(description="Field of the character at which it begins, from 0; without it, where it first stands."),
    ] = "answer_start"
    stride: Annotated[
        int, Field(ge=0, le=131072, description="Tokens that two windows of a long context share, at most.")
    ] = 64

    @property
    def head(self) -> str:
        return "question-answering"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return (PAD, CLS, SEP)

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.question, self.context, self.answer, self.answer_start)


class Preference(TaskSection):
    """Prefer one answer to another, by how often the model without its adapter would give them (DPO, arXiv:2305.18290)."""

    type: Literal["preference"] = "preference"
    prompt: Annotated[FieldName, Field(description="Field of what the user says, or of a conversation so far.")] = (
        "prompt"
    )
    chosen: Annotated[FieldName, Field(description="Field of the better answer.")] = "chosen"
    rejected: Annotated[FieldName, Field(description="Field of the worse one.")] = "rejected"
    beta: Annotated[Number, Field(gt=0, le=100, description="How closely the model is held to the reference.")] = (
        Decimal("0.1")
    )
    template: ChatTemplate = ChatTemplate()

    @property
    def head(self) -> str:
        return "causal-lm"

    @property
    def special_tokens(self) -> tuple[str, ...]:
        return self.template.special_tokens

    @property
    def field_names(self) -> tuple[str, ...]:
        return (self.prompt, self.chosen, self.rejected)


SingleTask = Annotated[
    CausalLM | MaskedLM | Seq2Seq | SequenceClassification | QuestionAnswering | Instruction | Preference,
    Field(discriminator="type"),
]


TASK_TYPES = (
    "causal-lm",
    "masked-lm",
    "seq2seq",
    "sequence-classification",
    "question-answering",
    "instruction",
    "preference",
    "plugin",
)
"""What a plan's `task.type` can be beside `mixture`, which has several of them."""
TASK_TYPES_WITH_FIELDS = frozenset(
    {"seq2seq", "sequence-classification", "question-answering", "instruction", "preference"}
)
"""Those that read fields of records, and no plain text."""
