"""A plan's task → how data become batches, and its objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.plan.model import Plan
from common.plan.tasks import CausalLM, Seq2Seq, SequenceClassification, Task
from llmasos.tasks.base import Objective, Recipe
from llmasos.tasks.causal_lm import NextToken, NextTokenWindows
from llmasos.tasks.classification import LabelledTexts, Labels
from llmasos.tasks.records import RecordRecipe, RecordTask
from llmasos.tasks.seq2seq import Pairs, TargetTokens
from llmasos.tasks.windows import WindowRecipe
from llmasos.tokenizers.special import vocabulary_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def objective_of(task: Task) -> Objective:
    """The loss that the plan's task names."""
    match task:
        case CausalLM():
            return NextToken()
        case Seq2Seq():
            return TargetTokens()
        case SequenceClassification():
            return Labels()


def recipe_of(plan: Plan, tokenizer: Tokenizer) -> Recipe:
    """How the plan's task makes batches of an institution's data."""
    if isinstance(plan.task, CausalLM):
        return WindowRecipe(NextTokenWindows(plan.local.sequence_length), plan, tokenizer)
    return RecordRecipe(_record_task(plan, tokenizer), plan, tokenizer)


def _record_task(plan: Plan, tokenizer: Tokenizer) -> RecordTask:
    vocabulary, width = vocabulary_of(tokenizer), plan.local.sequence_length
    match plan.task:
        case Seq2Seq() as task:
            return Pairs(task, vocabulary, width)
        case SequenceClassification() as task:
            return LabelledTexts(task, vocabulary, width)
        case _:
            raise TypeError(f"{plan.task.type} is no task on records")
