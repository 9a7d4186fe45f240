"""Masked language models that also say whether one text follows another (BERT's pre-training, arXiv:1810.04805).

    [CLS] A [SEP] B [SEP]         token types 0 0 0 1 1; next_sentence_label 0: B follows A, 1: it does not

A and B are segments of one length, cut from documents end to end. Half of the rows have the segment that follows, half another
one of the same institution, drawn at random. A loss is a token's or a row's: the mean is over both kinds of targets together,
where BERT adds the two means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from common.errors import TooLittleData, UnreadableData
from common.plan.model import Plan
from llmasos.datasets.draws import Dice
from llmasos.datasets.rows import Row, RowFile, write_rows
from llmasos.datasets.source import Source
from llmasos.datasets.text import Document, split_documents, survey
from llmasos.datasets.tokens import encoded_pieces
from llmasos.tasks.base import Batch, Facts, Tensors, Written, rows_in, together
from llmasos.tasks.encoding import LABELS, NO_LABEL, TYPES, inputs, label_nats, labelled, padded, seen
from llmasos.tasks.masked_lm import Masking
from llmasos.tasks.sides import RowSide

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NEXT = "next_sentence_label"
_HALF = Fraction(1, 2)
_MARKS = 3

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SegmentPairs:
    """What a batch is made of two segments."""

    masking: Masking
    width: int

    @property
    def segment(self) -> int:
        """Tokens a segment, at most."""
        return (self.width - _MARKS) // 2

    @property
    def most_targets(self) -> int:
        return self.masking.most(2 * self.segment) + 1

    def row(self, first: Ids, second: Ids, follows: bool, dice: Dice) -> Batch:
        words = self.masking.vocabulary
        seen_T, labels_T = self.masking.hide(np.concatenate([first, second]), dice)
        cut = first.size
        ids = [words.cls, *seen_T[:cut], words.sep, *seen_T[cut:], words.sep]
        labels = [NO_LABEL, *labels_T[:cut], NO_LABEL, *labels_T[cut:]]
        types = [0] * (cut + 2) + [1] * (second.size + 1)
        return {
            **inputs(ids, self.width, words.pad),
            TYPES: padded(types, self.width, 0),
            LABELS: padded(labels, self.width, NO_LABEL),
            NEXT: np.asarray([0 if follows else 1], dtype=np.int64),
        }


@dataclass(frozen=True, slots=True)
class Segments(RowSide):
    """One side of the split, open for reading; a row of the file is (number of its document, tokens)."""

    file: RowFile
    pairs: SegmentPairs
    plan: Plan

    @property
    def most_targets(self) -> int:
        return self.pairs.most_targets

    def measured_rows(self) -> Iterator[Batch]:
        if self.file.count < 2:
            raise TooLittleData(
                f"The text to measure is {self.file.count} segment of {self.pairs.segment} tokens; next-sentence prediction "
                "needs two segments of text at least: one, and what may follow it.",
                "Name more text.",
            )
        return RowSide.measured_rows(self)

    def _row(self, index: int, dice: Dice) -> Batch:
        wants_next = dice.is_below(_HALF)
        if wants_next and not self._follows(index) and index > 0 and self._follows(index - 1):
            index -= 1  # a document's last segment has none after it, but one before it
        follows = self._follows(index)
        taken = 2 if follows else 1  # the segment itself, and the one after it
        if (wants_next and follows) or self.file.count == taken:
            return self._made(index, index + 1, True, dice)
        second = dice.below(self.file.count - taken)
        return self._made(index, second if second < index else second + taken, False, dice)

    def _made(self, first: int, second: int, follows: bool, dice: Dice) -> Batch:
        return self.pairs.row(self.file.read(first)[1], self.file.read(second)[1], follows, dice)

    def _follows(self, index: int) -> bool:
        """Whether the next segment is of the same document."""
        return index + 1 < self.file.count and self._document(index) == self._document(index + 1)

    def _document(self, index: int) -> int:
        return int(self.file.read(index)[0][0])


@dataclass(frozen=True, slots=True)
class SegmentRecipe:
    """From folders of text to segments."""

    pairs: SegmentPairs
    plan: Plan
    tokenizer: Tokenizer
    suffix: str = ".rows"

    def survey(self, source: Source) -> Iterator[Path | Document | UnreadableData]:
        return survey(source.folder, text_column=source.text_column, unit_field=source.unit_field)

    def split(self, things: Iterable[Document], names: str) -> tuple[list[Document], list[Document]]:
        return split_documents(things, self.plan.evaluation.held_out_fraction, seed=self.plan.seed, source=names)

    def write(self, things: Sequence[Document], path: Path) -> Written:
        rows, numbers = write_rows(self._segments(things), path, columns=2)
        return Written(len(things), numbers - rows, rows)

    def open(self, path: Path) -> Segments:
        return Segments(RowFile.open(path), self.pairs, self.plan)

    def check(self, facts: Facts, names: str) -> None:
        for rows, side in ((facts.train_rows, "to train on"), (facts.held_out_rows, "held out")):
            if rows < 2:
                raise TooLittleData(
                    f"{names} holds {rows} segments of {self.pairs.segment} tokens {side} in {facts.documents:,} documents, "
                    "at least 2 are needed: one, and what may follow it.",
                    "Offer more text, or choose a plan with task.next_sentence false.",
                )

    def sample(self, seed: int) -> Batch:
        generator, length = np.random.default_rng(seed), self.pairs.segment
        ordinary = self.pairs.masking.vocabulary.ordinary
        return together(
            [
                self.pairs.row(
                    generator.choice(ordinary, length), generator.choice(ordinary, length), True, Dice(0, 0, row)
                )
                for row in range(self.plan.local.batch_size)
            ]
        )

    def _segments(self, documents: Sequence[Document]) -> Iterator[Row]:
        number, waiting, length = 0, list[int](), self.pairs.segment
        for ids, is_last in encoded_pieces(documents, self.tokenizer):
            waiting += ids
            while len(waiting) >= length or (is_last and waiting):
                yield [[number], waiting[:length]]
                waiting = waiting[length:]
            number += is_last


class HiddenTokensAndNext:
    """Cross entropy of each hidden token, and of each row's next_sentence_label."""

    def targets(self, batch: Batch) -> int:
        return labelled(batch) + rows_in(batch)

    def nats(self, model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
        found = model(**seen(model, batch))
        tokens_N = label_nats(found.prediction_logits, batch[LABELS])
        rows_B = torch.nn.functional.cross_entropy(found.seq_relationship_logits.float(), batch[NEXT], reduction="none")
        return torch.cat([tokens_N, rows_B])
