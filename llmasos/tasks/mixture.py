"""Mixtures: several tasks on one model, each row of a batch of a task drawn by its weight.

An institution's records go to the first task of the plan whose fields they have, files without fields to the task on
running text; where a data set is for some tasks only, to one of those. An institution without data for a task trains on the
others, in the proportions of their weights; so institutions with different tasks can train one model. Held-out loss is measured
on each task's rows, each with an equal part of `evaluation.max_tokens`, and is the mean over all targets.

    train.mixture            how many documents each task has: JSON
    train.mixture.0.rows     the first task's
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from common.errors import StorageFailure, TooLittleData, UnreadableData
from common.plan.model import Plan
from common.plan.tasks import Mixture
from llmasos.atomic import replacing
from llmasos.datasets.draws import Dice
from llmasos.datasets.formats import DEFAULT_COLUMN
from llmasos.datasets.records import RECORD_FILES, Example, Wanted, survey_examples
from llmasos.datasets.source import Source
from llmasos.datasets.text import Document, files_in, split_units, survey
from llmasos.tasks.base import Batch, Data, Facts, Recipe, Written, together
from llmasos.tasks.records import RecordRecipe

_TASK_OF_ROW = 2**32
"""Beyond every row's number: which task a row is of is drawn from a stream of its own."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """A document or record, and the number of the task that learns from it."""

    part: int
    thing: Document | Example

    @property
    def content(self) -> str:
        return self.thing.content

    @property
    def unit(self) -> str | None:
        return self.thing.unit

    @property
    def name(self) -> str:
        """For people."""
        return self.thing.name if isinstance(self.thing, Document) else self.thing.place


@dataclass(frozen=True, slots=True)
class Mixed:
    """One side of the split, open for reading: those tasks that have data here."""

    path: Path
    parts: tuple[Data, ...]
    weights: tuple[Fraction, ...]
    batch_size: int

    def batch(self, *, seed: int, step: int) -> Batch:
        drawn = [self._part(Dice(seed, step, _TASK_OF_ROW + row)) for row in range(self.batch_size)]
        batches = {part: self.parts[part].batch(seed=seed, step=step) for part in set(drawn)}
        return together([_row(batches[part], row) for row, part in enumerate(drawn)])

    def measured_rows(self) -> Iterator[Batch]:
        for part in self.parts:
            yield from part.measured_rows()

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def _part(self, dice: Dice) -> int:
        bounds, share = list(accumulate(self.weights)), Fraction(int(dice.raw(1)[0]), 2**64)
        return next(part for part, bound in enumerate(bounds) if share * bounds[-1] < bound)


@dataclass(frozen=True, slots=True)
class MixtureRecipe:
    """From folders to all tasks' rows."""

    task: Mixture
    recipes: tuple[Recipe, ...]
    plan: Plan
    suffix: str = ".mixture"

    def survey(self, source: Source) -> Iterator[Path | Sorted | UnreadableData]:
        numbers = [number for number, one in enumerate(self.task.tasks) if one.takes(source.tasks)]
        text = next((number for number in numbers if not self.task.tasks[number].task.field_names), None)
        numbers = [number for number in numbers if number != text]
        column = source.text_column or DEFAULT_COLUMN
        wanted = self._wanted(numbers, column if text is not None else None)
        for path, _ in files_in(source.folder):
            if path.suffix.lower() in RECORD_FILES or text is None:
                for found in survey_examples(path, wanted, unit_field=source.unit_field):
                    if not isinstance(found, Example):
                        yield found
                    elif (number := self._number(found, numbers)) is not None:
                        yield self._of(number, found)
                    elif text is not None and found.has(column):
                        yield Sorted(text, Document(found.place, found.text(column), found.unit))
            else:
                for whole in survey(path, unit_field=source.unit_field):
                    yield Sorted(text, whole) if isinstance(whole, Document) else whole

    def split(self, things: Iterable[Sorted], names: str) -> tuple[list[Sorted], list[Sorted]]:
        kept = list(things)
        fraction, seed = self.plan.evaluation.held_out_fraction, self.plan.seed
        if any(thing.unit is not None for thing in kept):
            return split_units(kept, fraction, seed=seed, source=names)  # a unit may have data of several tasks
        sides: tuple[list[Sorted], list[Sorted]] = ([], [])
        for part in sorted({thing.part for thing in kept}):
            own = [thing.thing for thing in kept if thing.part == part]
            for side, some in zip(sides, self.recipes[part].split(own, self._names(part, names)), strict=True):
                side.extend(Sorted(part, thing) for thing in some)
        return sides

    def write(self, things: Sequence[Sorted], path: Path) -> Written:
        written = []
        for number, recipe in enumerate(self.recipes):
            own = [thing.thing for thing in things if thing.part == number]
            written.append(recipe.write(own, _file(path, number, recipe)) if own else Written(0, 0))
        with replacing(path) as file:
            file.write(json.dumps([one.documents for one in written]).encode())
        return Written(
            documents=len(things),
            tokens=sum(one.tokens for one in written),
            rows=sum(one.rows for one in written),
            shortened=sum(one.shortened for one in written),
            left_out=sum(one.left_out for one in written),
            parts=tuple(written),
        )

    def open(self, path: Path) -> Mixed:
        documents = _index(path, len(self.recipes))
        with ExitStack() as opened:
            parts, weights = [], []
            for number, (recipe, part) in enumerate(zip(self.recipes, self.task.tasks, strict=True)):
                if documents[number]:
                    parts.append(recipe.open(_file(path, number, recipe)))
                    opened.callback(parts[-1].close)
                    weights.append(Fraction(part.weight))
            opened.pop_all()
        return Mixed(path, tuple(parts), tuple(weights), self.plan.local.batch_size)

    def check(self, facts: Facts, names: str) -> None:
        if not facts.documents:
            raise TooLittleData(f"{names} holds nothing for any task of the mixture.")
        for number, (recipe, part) in enumerate(zip(self.recipes, facts.parts, strict=True)):
            if part.documents:
                recipe.check(part, self._names(number, names))

    def sample(self, seed: int) -> Batch:
        samples = [recipe.sample(seed + number) for number, recipe in enumerate(self.recipes)]
        return together([_row(samples[row % len(samples)], row) for row in range(self.plan.local.batch_size)])

    def _names(self, number: int, names: str) -> str:
        """For messages: the folders, and which task lacks something there."""
        part = self.task.tasks[number]
        return f"For task {part.name or part.task.type} {names}"

    def _wanted(self, numbers: Sequence[int], column: str | None) -> Wanted:
        """What records may hold for the tasks of these numbers; `column`: of the one on running text."""
        recipes = [self.recipes[number] for number in numbers]
        each = [recipe.task.wanted for recipe in recipes if isinstance(recipe, RecordRecipe)]
        forms = tuple(form for one in each for form in one.forms)
        return Wanted(
            forms if column is None else (*forms, (column,)),
            self.task.type,
            may_be_empty=tuple(name for one in each for name in one.may_be_empty),
            optional=tuple(name for one in each for name in one.optional),
        )

    def _number(self, example: Example, numbers: Sequence[int]) -> int | None:
        """Of the tasks on records with these numbers, the first whose fields it has."""
        for number in numbers:
            recipe = self.recipes[number]
            if isinstance(recipe, RecordRecipe) and recipe.task.wanted.form_of(example) is not None:
                return number
        return None

    def _of(self, number: int, example: Example) -> Sorted | UnreadableData:
        recipe = self.recipes[number]
        assert isinstance(recipe, RecordRecipe)
        try:
            recipe.task.texts(example)
        except UnreadableData as err:
            return err
        return Sorted(number, example)


def _index(path: Path, parts: int) -> list[int]:
    """How many documents each task has."""
    fix = "Remove it; it is made again from the data."
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise StorageFailure(f"{path} could not be read: {err}.", fix) from err
    if not isinstance(found, list) or len(found) != parts or not all(isinstance(number, int) for number in found):
        raise StorageFailure(f"{path} is damaged: expected {parts} numbers.", fix)
    return found


def _file(path: Path, number: int, recipe: Recipe) -> Path:
    return path.with_name(f"{path.name}.{number}{recipe.suffix}")


def _row(batch: Batch, row: int) -> Batch:
    return {name: values[row : row + 1] for name, values in batch.items()}
