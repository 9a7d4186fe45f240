"""What a fitted model is asked for besides text: a label, an answer that stands in a text, a turn of a conversation.

Each encodes its input as the task's rows are encoded (llmasos.tasks), so that a model sees what it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.errors import UsageError
from common.plan.tasks import Instruction, QuestionAnswering, SequenceClassification
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example
from llmasos.datasets.rows import Columns, Row
from llmasos.tasks.base import Batch, tensors_of, together
from llmasos.tasks.classification import LabelledTexts
from llmasos.tasks.encoding import seen
from llmasos.tasks.instruction import ROLES, turns_of
from llmasos.tasks.question_answering import Questions, span_logits
from llmasos.tokenizers.special import vocabulary_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

_MAX_ANSWER = 64
"""Tokens of an answer."""


def label_of(
    model: PreTrainedModel, tokenizer: Tokenizer, task: SequenceClassification, width: int, texts: Sequence[str]
) -> dict[str, float]:
    """The probability of each label, the likeliest first.

    Raises:
        UsageError: the task judges pairs and one text was given, or the other way round.
    """
    maker = LabelledTexts(task, vocabulary_of(tokenizer), width)
    names = [name for name in (task.text, task.text_pair) if name is not None]
    if len(names) != len(texts):
        raise UsageError(f"The model was fitted to judge {len(names)} texts at a time, got {len(texts)}.")
    fields: dict[str, object] = dict(zip(names, texts, strict=True))
    example = Example("the text", {**fields, task.label: task.labels[0]})
    encoded = maker.encode(example, tokenizer.encode_batch(maker.texts(example), add_special_tokens=False))
    batch = _tensors(model, [maker.row(_columns(row), Dice(0, 0, 0)) for row in encoded.rows])
    with torch.inference_mode():
        logits_1C = model(**seen(model, batch)).logits
    shares = logits_1C[0].float().softmax(-1).tolist()
    return dict(sorted(zip(task.labels, shares, strict=True), key=lambda pair: -pair[1]))


def answer_to(
    model: PreTrainedModel, tokenizer: Tokenizer, task: QuestionAnswering, width: int, question: str, context: str
) -> str:
    """The likeliest answer that stands in the context, word for word; empty where the model finds none."""
    maker = Questions(task, vocabulary_of(tokenizer), width)
    example = Example("the question", {task.question: question, task.context: context, task.answer: ""})
    asked, read = tokenizer.encode_batch(maker.texts(example), add_special_tokens=False)
    rows = maker.encode(example, [asked, read]).rows
    batch = _tensors(model, [maker.row(_columns(row), Dice(0, 0, 0)) for row in rows])
    with torch.inference_mode():
        starts_BL, ends_BL = span_logits(model, batch)
    best, answer, begin = -float("inf"), "", 0
    for row, starts_L, ends_L in zip(rows, starts_BL.cpu(), ends_BL.cpu(), strict=True):
        begin = _begin(read.ids, row[1], begin)
        first, tokens = len(row[0]) + 2, len(row[1])
        none = float(starts_L[0] + ends_L[0])
        for start in range(tokens):
            for stop in range(start, min(tokens, start + _MAX_ANSWER)):
                score = float(starts_L[first + start] + ends_L[first + stop]) - none
                if score > best and score > 0:
                    best = score
                    answer = context[read.offsets[begin + start][0] : read.offsets[begin + stop][1]]
    return answer


def turn_ids(tokenizer: Tokenizer, task: Instruction, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], int]:
    """A conversation up to where the assistant speaks, as tokens, and the token with which it ends its turn.

    Raises:
        UsageError: a message has no known role, or no text.
    """
    turns = turns_of(task.template, tokenizer)
    ids: list[int] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise UsageError(f"A message has role {role!r}, expected one of {', '.join(ROLES)}, and content, a text.")
        turn = turns[str(role)]
        ids += [*turn.prefix, *tokenizer.encode(content, add_special_tokens=False).ids, *turn.suffix]
    speaks = turns["assistant"]
    end = speaks.suffix[0] if speaks.suffix else vocabulary_of(tokenizer).end
    return [*ids, *speaks.prefix], end


def _begin(context: Sequence[int], window: Sequence[int], after: int) -> int:
    """Where a window lies in the context; windows come in order."""
    return next(
        place for place in range(after, len(context) + 1) if list(context[place : place + len(window)]) == list(window)
    )


def _columns(row: Row) -> Columns:
    return tuple(np.asarray(column, dtype=np.int64) for column in row)


def _tensors(model: PreTrainedModel, rows: Sequence[Batch]) -> dict[str, torch.Tensor]:
    return tensors_of(together(rows), model.device)
