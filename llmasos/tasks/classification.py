"""Sequence classification: which of the plan's labels a text has, or a pair of texts (arXiv:1810.04805).

    [CLS] text [SEP]                  token types 0 0 0
    [CLS] text [SEP] pair [SEP]       token types 0 0 0 1 1

What does not fit into `local.sequence_length` is cut at the end of the text, of a pair the longer one first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.errors import UnreadableData
from common.plan.tasks import SequenceClassification
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted
from llmasos.datasets.rows import Columns, Row
from llmasos.tasks.base import Batch, Tensors, rows_in
from llmasos.tasks.encoding import LABELS, TYPES, inputs, padded, pair_lengths, seen
from llmasos.tasks.records import Encoded
from llmasos.tokenizers.special import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """A row is (text, second text or nothing, label), without the marks."""

    task: SequenceClassification
    vocabulary: Vocabulary
    width: int
    columns: int = 3

    @property
    def wanted(self) -> Wanted:
        return Wanted((self.task.field_names,), self.task.type)

    @property
    def most_targets(self) -> int:
        return 1

    def texts(self, example: Example) -> list[str]:
        self._label(example)
        names = [self.task.text] if self.task.text_pair is None else [self.task.text, self.task.text_pair]
        return [example.text(name) for name in names]

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        first, second = [encoding.ids for encoding in encodings] if len(encodings) > 1 else (encodings[0].ids, [])
        marks = 2 if self.task.text_pair is None else 3
        kept = pair_lengths(len(first), len(second), self.width - marks)
        row = [first[: kept[0]], second[: kept[1]], [self._label(example)]]
        return Encoded([row], shortened=kept != (len(first), len(second)))

    def row(self, columns: Columns, dice: Dice) -> Batch:
        first, second, label = columns
        words = self.vocabulary
        ids = [words.cls, *first, words.sep]
        types = [0] * len(ids)
        if self.task.text_pair is not None:
            ids += [*second, words.sep]
            types += [1] * (len(ids) - len(types))
        return {**inputs(ids, self.width, words.pad), TYPES: padded(types, self.width, 0), LABELS: label}

    def longest(self, tokens: np.random.Generator) -> Row:
        marks = 2 if self.task.text_pair is None else 3
        first = tokens.choice(self.vocabulary.ordinary, self.width - marks).tolist()
        return [first, [], [int(tokens.integers(len(self.task.labels)))]]

    def _label(self, example: Example) -> int:
        word = example.word(self.task.label)
        if word not in self.task.labels:
            raise UnreadableData(
                f"{example.place} has a label in field {self.task.label!r} that is none of the plan's "
                f"{len(self.task.labels):,}: {_some(self.task.labels)}.",
                "Correct the record or take it out, or ask the operator to name the label in task.labels.",
            )
        return self.task.labels.index(word)


class Labels:
    """Cross entropy of each row's label."""

    def targets(self, batch: Batch) -> int:
        return rows_in(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        logits_BC: torch.Tensor = model(**seen(model, batch)).logits
        return torch.nn.functional.cross_entropy(logits_BC.float(), batch[LABELS], reduction="none")


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
