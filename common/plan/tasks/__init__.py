"""The plan's `task`: what the model learns from an institution's data, and which fields of its records that is in.

task: {type: causal-lm}
task: {type: seq2seq, source: german, target: english}
task: {type: sequence-classification, labels: [benign, malignant]}

    base.py      what each section says of itself
    single.py    the tasks; chat.py what stands around a conversation's turns
    mixture.py   several of them; plugin.py one of somebody else's package
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.plan.tasks.base import CLS, MASK, SEP, TaskSection
from common.plan.tasks.chat import ChatTemplate, is_special
from common.plan.tasks.mixture import Mixture, Part
from common.plan.tasks.plugin import Plugin
from common.plan.tasks.single import (
    TASK_TYPES,
    TASK_TYPES_WITH_FIELDS,
    CausalLM,
    Instruction,
    MaskedLM,
    Preference,
    QuestionAnswering,
    Seq2Seq,
    SequenceClassification,
    SingleTask,
)

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

__all__ = [
    "CLS",
    "MASK",
    "SEP",
    "TASK_TYPES",
    "TASK_TYPES_WITH_FIELDS",
    "CausalLM",
    "ChatTemplate",
    "Instruction",
    "MaskedLM",
    "Mixture",
    "Part",
    "Plugin",
    "Preference",
    "QuestionAnswering",
    "Seq2Seq",
    "SequenceClassification",
    "SingleTask",
    "Task",
    "TaskSection",
    "is_special",
]
