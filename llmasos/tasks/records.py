"""Tasks on records: each example becomes rows on disk, and rows become a batch.

RecordTask      what a task says: which fields it reads, how an example is encoded, what a batch is made of rows
RecordRecipe    the same work for all of them: reading, splitting by unit, files, counting, drawing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.errors import TooLittleData, UnreadableData
from common.plan.model import Plan
from llmasos.datasets.draws import Dice
from llmasos.datasets.records import Example, Wanted, survey_examples
from llmasos.datasets.rows import Columns, Row, RowFile, write_rows
from llmasos.datasets.source import Source
from llmasos.datasets.text import split_units
from llmasos.tasks.base import Batch, Facts, Written, together
from llmasos.tasks.sides import RowSide

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

EXAMPLES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """The rows of an example, none if nothing can be learned from it, and whether something of it was cut off."""

    rows: Sequence[Row]
    shortened: bool = False


class RecordTask(Protocol):
    """What a task makes of examples."""

    @property
    def wanted(self) -> Wanted:
        """The fields that it reads."""
        ...

    @property
    def columns(self) -> int:
        """Of its rows."""
        ...

    @property
    def most_targets(self) -> int:
        """Targets that a row can have, at most."""
        ...

    def texts(self, example: Example) -> list[str]:
        """What is to be tokenised of an example.

        Raises:
            UnreadableData: a field holds something else than it should; names file and line.
        """
        ...

    def encode(self, example: Example, encodings: Sequence[Encoding]) -> Encoded:
        """Its rows, given what the tokenizer made of its texts."""
        ...

    def row(self, columns: Columns, dice: Dice) -> Batch:
        """A row from the file as a batch of one, of the plan's widths."""
        ...

    def longest(self, tokens: np.random.Generator) -> Row:
        """A row as long as rows can be, of random tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Rows(RowSide):
    """One side of the split, open for reading."""

    file: RowFile
    task: RecordTask
    plan: Plan

    @property
    def most_targets(self) -> int:
        return self.task.most_targets

    def _row(self, index: int, dice: Dice) -> Batch:
        return self.task.row(self.file.read(index), dice)


@dataclass(frozen=True, slots=True)
class RecordRecipe:
    """From folders of records to rows."""

    task: RecordTask
    plan: Plan
    tokenizer: Tokenizer
    suffix: str = ".rows"

    def survey(self, source: Source) -> Iterator[Path | Example | UnreadableData]:
        for found in survey_examples(source.folder, self.task.wanted, unit_field=source.unit_field):
            if isinstance(found, Example):
                if self.task.wanted.form_of(found) is None:
                    continue
                try:
                    self.task.texts(found)
                except UnreadableData as err:
                    yield err
                    continue
            yield found

    def split(self, things: Iterable[Example], names: str) -> tuple[list[Example], list[Example]]:
        return split_units(things, self.plan.evaluation.held_out_fraction, seed=self.plan.seed, source=names)

    def write(self, things: Sequence[Example], path: Path) -> Written:
        counted = _Counted()
        rows, numbers = write_rows(self._rows(things, counted), path, columns=self.task.columns)
        return Written(len(things), numbers, rows, counted.shortened, counted.left_out)

    def open(self, path: Path) -> Rows:
        return Rows(RowFile.open(path), self.task, self.plan)

    def check(self, facts: Facts, names: str) -> None:
        for rows, side, records in (
            (facts.train_rows, "to train on", facts.documents - facts.held_out_documents),
            (facts.held_out_rows, "held out", facts.held_out_documents),
        ):
            if not rows:
                raise TooLittleData(
                    f"{names} holds no row {side}: in none of {records:,} records is there anything to learn for task "
                    f"{self.plan.task.type} within local.sequence_length {self.plan.local.sequence_length}.",
                    "Add records, or ask the operator for a longer local.sequence_length.",
                )

    def sample(self, seed: int) -> Batch:
        generator = np.random.default_rng(seed)
        rows = []
        for number in range(self.plan.local.batch_size):
            columns = tuple(np.asarray(column, dtype=np.int64) for column in self.task.longest(generator))
            rows.append(self.task.row(columns, Dice(0, 0, number)))
        return together(rows)

    def _rows(self, examples: Iterable[Example], counted: _Counted) -> Iterator[Row]:
        waiting = iter(examples)
        while group := list(islice(waiting, EXAMPLES_AT_ONCE)):
            texts = [self.task.texts(example) for example in group]
            flat = [text for some in texts for text in some]
            encodings = iter(self.tokenizer.encode_batch(flat, add_special_tokens=False))
            for example, some in zip(group, texts, strict=True):
                encoded = self.task.encode(example, list(islice(encodings, len(some))))
                counted.shortened += encoded.shortened
                counted.left_out += not encoded.rows
                yield from encoded.rows


@dataclass(slots=True)
class _Counted:
    shortened: int = 0
    left_out: int = 0
