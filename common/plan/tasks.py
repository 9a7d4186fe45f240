"""The plan's `task`: what the model learns from an institution's data, and which fields of its records that is in.

task: {type: causal-lm}
task: {type: seq2seq, source: german, target: english}
task: {type: sequence-classification, labels: [benign, malignant]}
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.names import Name
from common.plan.fields import Number, PlanSection

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


_SPECIAL = re.compile(r"<\|\w{1,50}\|>")
END_OF_DOCUMENT = "<|endoftext|>"


class Turn(PlanSection):
    """What stands around what somebody says. `<|name|>` is a special token, which nobody's text can spell."""

    prefix: Annotated[str, Field(max_length=1000, description="Before it.")]
    suffix: Annotated[str, Field(max_length=1000, description="After it.")]

    @property
    def pieces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Prefix and suffix, each cut into special tokens and the text between them."""
        return _pieces(self.prefix), _pieces(self.suffix)


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(piece for piece in re.split(f"({_SPECIAL.pattern})", text) if piece)


def is_special(piece: str) -> bool:
    """Whether a piece of a template is a special token."""
    return _SPECIAL.fullmatch(piece) is not None


class ChatTemplate(PlanSection):
    """How a conversation becomes one text: ChatML, if nothing else is said. Data, not a program: nothing in it is run."""

    system: Turn = Turn(prefix="<|im_start|>system\n", suffix="<|im_end|>\n")
    user: Turn = Turn(prefix="<|im_start|>user\n", suffix="<|im_end|>\n")
    assistant: Turn = Turn(prefix="<|im_start|>assistant\n", suffix="<|im_end|>\n")

    @property
    def turns(self) -> dict[str, Turn]:
        """By role."""
        return {"system": self.system, "user": self.user, "assistant": self.assistant}

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """In the order in which they come."""
        pieces = [piece for turn in self.turns.values() for side in turn.pieces for piece in side]
        return tuple(dict.fromkeys(piece for piece in pieces if is_special(piece) and piece != END_OF_DOCUMENT))


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


Task = Annotated[
    CausalLM
    | MaskedLM
    | Seq2Seq
    | SequenceClassification
    | QuestionAnswering
    | Instruction
    | Preference
    | Mixture
    | Plugin,
    Field(discriminator="type"),
]
