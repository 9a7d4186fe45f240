"""From where data stand to what is in each split, every cut made by the task's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration, TooLittleData, UnreadableData, UsageError
from common.plan.local import Evaluation
from common.plan.model import Plan
from common.plan.tasks import CausalLM, Mixture, Task
from llmasos.datasets.encodings import readable
from llmasos.datasets.named import DataFiles, named_splits
from llmasos.datasets.source import Source
from llmasos.datasets.text import Splittable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from llmasos.tasks.base import Recipe

DEFAULT_SHARE = 0.1
Parts = dict[str, list[Any]]
"""Documents or records by split."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What is cut out of the data; None: DEFAULT_SHARE, or nothing where the data name their splits."""

    validation: float | None
    test: float | None

    def decided(self, named: Mapping[str, object]) -> tuple[Decimal, Decimal]:
        """
        Raises:
            InvalidConfiguration: out of range, or the share of a split that the data name.
        """
        for name, share in (("validation", self.validation), ("test", self.test)):
            if share is not None and name in named:
                raise InvalidConfiguration(
                    f"{name} is {share}, but the data name their own split {name}.", f"Leave the share of {name} out."
                )
        default = 0 if named else DEFAULT_SHARE
        found = [default if share is None else share for share in (self.validation, self.test)]
        validation, test = (Decimal(str(share)) for share in found)
        if min(validation, test) < 0 or validation + test >= 1:
            raise InvalidConfiguration(
                f"validation is {found[0]} and test {found[1]}, expected shares from 0, together below 1.",
                "0.1 is a tenth of the documents; 0 leaves a split empty.",
            )
        return validation, test


@dataclass(frozen=True, slots=True)
class Splitting:
    """From a source to three lists of documents or records."""

    task: Task
    tokenizer: Tokenizer
    seed: int
    source: Source

    def parts(self, shares: Shares, data_files: DataFiles | None) -> Parts:
        """By split: as the data name them, else as a hash of their content and the seed says.

        Raises:
            InvalidConfiguration: shares out of range, or of splits that the data name.
            TooLittleData: a split that they name is empty, or there is too little to hold any of it out.
            UsageError, UnreadableData, StorageFailure: about the files; or a unit stands in two splits.
        """
        folder = self.source.folder
        named = named_splits(folder, data_files)
        validation, test = shares.decided(named)
        found = {name: self._read(files, name) for name, files in named.items()}
        whole = found.pop("train", None) or self._read([folder], "")
        parts = {**self._cut_out(whole, validation, test), **found}
        if named and self.source.unit_field is not None:
            _check_units(parts, str(folder))
        return parts

    def _read(self, files: Sequence[Path], split: str) -> list[Any]:
        things = [thing for one in files for thing in readable(self._things(one), str(one))]
        if not things:
            where = f"The split {split} of {self.source.folder}" if split else str(self.source.folder)
            raise TooLittleData(f"{where} holds no text or records.")
        return things

    def _things(self, path: Path) -> Iterator[Splittable]:
        source = replace(self.source, folder=path)
        for found in self._recipe(Decimal("0.1"), self.seed).survey(source):
            if isinstance(found, UnreadableData):
                raise found
            if not isinstance(found, Path):
                yield found

    def _cut_out(self, things: list[Any], validation: Decimal, test: Decimal) -> Parts:
        """The second cut has another seed: under the same one, what is held out ranks low already."""
        held_out, name = validation + test, str(self.source.folder)
        if not held_out:
            return {"train": things, "validation": [], "test": []}
        train, rest = self._recipe(held_out, self.seed).split(things, name)
        if not (validation and test):
            return {"train": train, "validation": rest if validation else [], "test": rest if test else []}
        later = self._recipe(test / held_out, (self.seed + 1) % 2**32)
        try:
            kept, tested = later.split(rest, f"What is held out of {name}")
        except TooLittleData as err:
            few = (
                "of a task of the mixture a single one"
                if isinstance(self.task, Mixture)
                else "too few to be shared by both"
            )
            raise TooLittleData(
                f"validation {validation} and test {test} of {name} are {len(rest):,} of {len(things):,} documents or records, "
                f"{few}.",
                "Ask for larger shares, or leave one of them out: test=0.",
            ) from err
        return {"train": train, "validation": kept, "test": tested}

    def _recipe(self, fraction: Decimal, seed: int) -> Recipe:
        from llmasos.tasks.registry import recipe_of

        plan = recipe_plan(self.task)
        evaluation = Evaluation.model_construct(held_out_fraction=fraction)
        return recipe_of(plan.model_copy(update={"evaluation": evaluation, "seed": seed}), self.tokenizer)


def recipe_plan(task: Task) -> Plan:
    """A plan for a recipe, which reads of it the task alone before there is a model: so nothing else of it is checked."""
    return Plan.model_construct(apiVersion="llmasos/v1", name="data", task=task or CausalLM())


def _check_units(parts: Parts, source: str) -> None:
    """
    Raises:
        UsageError: named splits divide a unit.
    """
    seen: dict[str, str] = {}
    for name, things in parts.items():
        for thing in things:
            other = seen.setdefault(thing.unit, name)
            if other != name:
                raise UsageError(
                    f"A unit stands in both {other} and {name} of {source}; none may be divided.",
                    "Move all that belongs to a unit into one split.",
                )
