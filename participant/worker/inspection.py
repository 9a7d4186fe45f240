"""An institution's data read as preparation would read it, counted, and nothing kept."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from common.errors import UnreadableData, UsageError
from llmasos.datasets.encodings import broken
from llmasos.datasets.source import Source
from llmasos.datasets.text import Splittable, Units, single_unit, survey
from llmasos.tokenizers import bytes_tokenizer
from participant.bench.worker_protocol import Inspect, Inspected

PROBLEMS_TOLD = 10
PROBLEM_CHARACTERS = 1000
"""A message to the agent is one line of bounded length, and a path may be long."""


def inspect_data(request: Inspect) -> Inspected:
    """Everything that there is in one data set, and what is wrong with it: files and lines, never text.

    Raises:
        UsageError: the folder does not exist, or the wanted fraction is not a number.
        StorageFailure: a file cannot be read.
    """
    try:
        plan = request.plan
        fraction = Fraction(request.held_out_fraction if plan is None else plan.evaluation.held_out_fraction)
    except (ValueError, ZeroDivisionError) as err:
        raise UsageError(f"held_out_fraction: expected a decimal number, got {request.held_out_fraction!r}.") from err
    data = request.data
    counted = _Count(data.folder)
    for found in _survey(request):
        counted.take(found, data.unit_field)
    if not counted.documents and not counted.problems_found:
        counted.tell(f"{data.folder} holds no text.")
    if len(counted.units) == 1 and data.unit_field is not None and not counted.problems_found:
        counted.tell(single_unit(data.folder, counted.documents).message)
    units = len(counted.units)
    return Inspected(
        files=counted.files,
        documents=counted.documents,
        characters=counted.characters,
        units=units,
        # Which ones, each plan's seed decides, and so how many exactly; never none, never all.
        held_out_units=min(max(round(fraction * units), 1), units - 1) if units > 1 else 0,
        records_without_unit=counted.without_unit,
        problems=tuple(counted.problems),
        problems_found=counted.problems_found,
    )


def _survey(request: Inspect) -> Iterator[Path | Splittable | UnreadableData]:
    """As preparation does, but for what the run's own tokenizer makes of it."""
    data = request.data
    source = Source(Path(data.folder), data.text_column, data.unit_field, data.tasks)
    if request.plan is None:
        return survey(source.folder, text_column=source.text_column, unit_field=source.unit_field)
    # Here and not above: they bring torch, which reading text does without.
    from llmasos.tasks.registry import recipe_of
    from llmasos.tokenizers.special import add_special

    tokenizer = bytes_tokenizer()
    add_special(tokenizer, request.plan.task.special_tokens)
    return recipe_of(request.plan, tokenizer).survey(source)


class _Count:
    """What was seen so far."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.files = self.documents = self.characters = self.without_unit = self.problems_found = 0
        self.units = Units(seed=0)
        self.problems: list[str] = []

    def take(self, found: Path | Splittable | UnreadableData, unit_field: str | None) -> None:
        if isinstance(found, Path):
            self.files += 1
        elif isinstance(found, UnreadableData):
            self.tell(found.message)
        else:
            problem = broken(found, self.folder)
            if problem is not None:
                self.tell(problem.message)
            self.documents += 1
            self.characters += len(found.content)
            if unit_field is not None and found.unit is None:
                self.without_unit += 1
            else:
                self.units.add(found)

    def tell(self, problem: str) -> None:
        self.problems_found += 1
        if self.problems_found > PROBLEMS_TOLD:
            return
        # The end names the line and what is wrong there; of a path too long to tell, the beginning goes.
        self.problems.append(problem if len(problem) <= PROBLEM_CHARACTERS else "…" + problem[-PROBLEM_CHARACTERS:])
