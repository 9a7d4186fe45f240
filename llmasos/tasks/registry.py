"""A plan's task → how data become batches, and its objective."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from common.plan.model import Plan
from common.plan.tasks import (
    CausalLM,
    Instruction,
    MaskedLM,
    Mixture,
    Plugin,
    Preference,
    QuestionAnswering,
    Seq2Seq,
    SequenceClassification,
    Task,
)
from llmasos.tasks.base import Objective, Recipe
from llmasos.tasks.causal_lm import LabelledWindows, NextToken, NextTokenWindows
from llmasos.tasks.classification import LabelledTexts, Labels
from llmasos.tasks.encoding import TokenLabels
from llmasos.tasks.instruction import Conversations, turns_of
from llmasos.tasks.masked_lm import MaskedWindows, Masking
from llmasos.tasks.mixture import MixtureRecipe
from llmasos.tasks.next_sentence import HiddenTokensAndNext, SegmentPairs, SegmentRecipe
from llmasos.tasks.plugin import load_plugin
from llmasos.tasks.preference import AnswerPairs, Preferred
from llmasos.tasks.question_answering import Questions, Spans
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
        case MaskedLM():
            return HiddenTokensAndNext() if task.next_sentence else TokenLabels()
        case Seq2Seq():
            return TargetTokens()
        case SequenceClassification():
            return Labels()
        case QuestionAnswering():
            return Spans()
        case Instruction():
            return TokenLabels()
        case Mixture():
            return TokenLabels() if task.head == "causal-lm" else objective_of(task.tasks[0].task)
        case Plugin():
            return load_plugin(task).objective(task)
        case Preference():
            return Preferred(float(task.beta))


def recipe_of(plan: Plan, tokenizer: Tokenizer) -> Recipe:
    """How the plan's task makes batches of an institution's data."""
    if isinstance(plan.task, CausalLM):
        return WindowRecipe(NextTokenWindows(plan.local.sequence_length), plan, tokenizer)
    if isinstance(plan.task, Plugin):
        return load_plugin(plan.task).recipe(plan, tokenizer)
    if isinstance(plan.task, Mixture):
        return _mixture_recipe(plan, plan.task, tokenizer)
    if isinstance(plan.task, MaskedLM):
        return _masked_recipe(plan, plan.task, tokenizer)
    return RecordRecipe(_record_task(plan, tokenizer), plan, tokenizer)


def _mixture_recipe(plan: Plan, task: Mixture, tokenizer: Tokenizer) -> Recipe:
    measured = max(1, plan.evaluation.max_tokens // len(task.tasks))
    evaluation = plan.evaluation.model_copy(update={"max_tokens": measured})
    recipes: list[Recipe] = []
    for part in task.tasks:
        own = plan.model_copy(update={"task": part.task, "evaluation": evaluation})
        if isinstance(part.task, CausalLM):
            windows = LabelledWindows(plan.local.sequence_length, vocabulary_of(tokenizer).pad)
            recipes.append(WindowRecipe(windows, own, tokenizer))
        else:
            recipes.append(recipe_of(own, tokenizer))
    return MixtureRecipe(task, tuple(recipes), plan)


def _masked_recipe(plan: Plan, task: MaskedLM, tokenizer: Tokenizer) -> Recipe:
    masking, width = Masking(vocabulary_of(tokenizer), Fraction(task.mask_fraction)), plan.local.sequence_length
    if task.next_sentence:
        return SegmentRecipe(SegmentPairs(masking, width), plan, tokenizer)
    return WindowRecipe(MaskedWindows(masking, width), plan, tokenizer)


def _record_task(plan: Plan, tokenizer: Tokenizer) -> RecordTask:
    vocabulary, width = vocabulary_of(tokenizer), plan.local.sequence_length
    match plan.task:
        case Seq2Seq() as task:
            return Pairs(task, vocabulary, width)
        case SequenceClassification() as task:
            return LabelledTexts(task, vocabulary, width)
        case QuestionAnswering() as task:
            return Questions(task, vocabulary, width)
        case Preference() as task:
            return AnswerPairs(task, turns_of(task.template, tokenizer), vocabulary, width)
        case Instruction() as task:
            return Conversations(task, turns_of(task.template, tokenizer), vocabulary, width)
        case _:
            raise TypeError(f"{plan.task.type} is no task on records")
