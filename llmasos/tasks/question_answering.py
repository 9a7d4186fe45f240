"""Extractive question answering: where in a text the answer begins and ends (arXiv:1606.05250, 1810.04805 section 4.2).

    [CLS] question [SEP] context [SEP]        token types 0 0 0 1 1; start and end are places in the row

A context that does not fit is read in several windows, each a row, of which two neighbours share `task.stride` tokens. Where a
window does not hold the whole answer, or there is none (arXiv:1806.03822), start and end are the place of [CLS]. A question
keeps half of the row at most; what is longer is cut at its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.errors import UnreadableData
from common.plan.tasks import QuestionAnswering
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted
from llmasos.datasets.rows import Columns, Row
from llmasos.tasks.base import Batch, Tensors, rows_in
from llmasos.tasks.encoding import ATTENTION, TYPES, inputs, padded, seen
from llmasos.tasks.records import Encoded
from llmasos.tokenizers.special import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding

START, END = "start_positions", "end_positions"
_MARKS = 3


@dataclass(frozen=True, slots=True)
class Questions:
    """A row is (question, window of the context, (start, end)), the places in the row."""

    task: QuestionAnswering
    vocabulary: Vocabulary
    width: int
    columns: int = 3

    @property
    def wanted(self) -> Wanted:
        task = self.task
        form = (task.question, task.context, task.answer)
        return Wanted((form,), task.type, may_be_empty=(task.answer,), optional=(task.answer_start,))

    @property
    def most_targets(self) -> int:
        return 2

    def texts(self, example: Example) -> list[str]:
        self._span(example)
        return [example.text(self.task.question), example.text(self.task.context)]

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        question, context = encodings
        asked = question.ids[: self.width // 2]
        answer = _tokens_of(self._span(example), context.offsets)
        room = self.width - _MARKS - len(asked)
        first = len(asked) + 2
        rows: list[Row] = []
        for begin in self._windows(len(context.ids), room):
            places = [0, 0]
            if answer is not None and begin <= answer[0] and answer[1] < begin + room:
                places = [first + token - begin for token in answer]
            rows.append([asked, context.ids[begin : begin + room], places])
        return Encoded(rows, shortened=len(asked) < len(question.ids))

    def row(self, columns: Columns, dice: Dice) -> Batch:
        question, context, places = columns
        words = self.vocabulary
        ids = [words.cls, *question, words.sep, *context, words.sep]
        types = [0] * (len(question) + 2) + [1] * (len(context) + 1)
        return {
            **inputs(ids, self.width, words.pad),
            TYPES: padded(types, self.width, 0),
            START: places[:1],
            END: places[1:],
        }

    def longest(self, tokens: np.random.Generator) -> Row:
        question = tokens.choice(self.vocabulary.ordinary, self.width // 2).tolist()
        context = tokens.choice(self.vocabulary.ordinary, self.width - _MARKS - len(question)).tolist()
        return [question, context, [0, 0]]

    def _windows(self, tokens: int, room: int) -> Iterator[int]:
        """Where windows begin; the last one ends with the context, or after it."""
        step = room - min(self.task.stride, room // 2)
        begin = 0
        while begin + room < tokens:
            yield begin
            begin += step
        yield begin

    def _span(self, example: Example) -> tuple[int, int] | None:
        """The answer's characters in the context: the first, and the one after the last; None where there is no answer."""
        task = self.task
        if not example.has(task.answer):
            return None
        answer, context = example.text(task.answer), example.text(task.context)
        if not example.has(task.answer_start):
            start = context.find(answer)
            if start < 0:
                raise UnreadableData(
                    f"{example.place} has an answer in field {task.answer!r} that does not stand in its context."
                )
            return start, start + len(answer)
        number = example.word(task.answer_start)
        if not number.isdecimal() or context[int(number) : int(number) + len(answer)] != answer:
            raise UnreadableData(
                f"{example.place} names in field {task.answer_start!r} a place where its answer does not begin.",
                "Count characters of the context from 0, or leave the field out.",
            )
        return int(number), int(number) + len(answer)


class Spans:
    """Cross entropy of where an answer begins and of where it ends, over the places that are no padding."""

    def targets(self, batch: Batch) -> int:
        return 2 * rows_in(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        starts_BL, ends_BL = span_logits(model, batch)
        return torch.cat(
            [
                torch.nn.functional.cross_entropy(starts_BL, batch[START], reduction="none"),
                torch.nn.functional.cross_entropy(ends_BL, batch[END], reduction="none"),
            ]
        )


def span_logits(model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Of beginnings and of ends: float32, shape (B, L) each; in padding the lowest there is."""
    found = model(**seen(model, batch))
    padding_BL = batch[ATTENTION] == 0
    lowest = torch.finfo(torch.float32).min
    return (
        found.start_logits.float().masked_fill(padding_BL, lowest),
        found.end_logits.float().masked_fill(padding_BL, lowest),
    )


def _tokens_of(span: tuple[int, int] | None, offsets: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The first and the last token that hold something of the characters."""
    if span is None:
        return None
    inside = [index for index, (begin, stop) in enumerate(offsets) if begin < span[1] and stop > span[0]]
    return (inside[0], inside[-1]) if inside else None
