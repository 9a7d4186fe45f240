"""Records with named fields: what tasks learn from that need more than text, such as a source and its translation.

    .jsonl    each line is a JSON object
    .csv      the first record names the fields; every value is text

    for example in read_examples(Path("/data/pairs"), Wanted(("source", "target"))):
        example.text("source")

Which fields are read, the plan's task says; which one names the unit, the institution does. Files without fields do not
belong into such a data set, and are errors. No message carries any of the text.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import UnreadableData
from llmasos.datasets.formats import MAX_FIELD_CHARACTERS, check_separated, json_object, json_unit, open_text, unit_of
from llmasos.datasets.text import clean, files_in


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names of fields, in one `form` or several: a record must have all fields of one of them.

    One without text in each is passed over.
    """

    forms: tuple[tuple[str, ...], ...]
    task: str = "this task"
    """For messages."""
    may_be_empty: tuple[str, ...] = ()
    """Of the fields of the forms, those in which nothing means something."""
    optional: tuple[str, ...] = ()
    """Fields that are read where they are there."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([name for form in self.forms for name in form] + [*self.optional]))

    def form_of(self, example: Example) -> tuple[str, ...] | None:
        """The first form in which the record says something in every field."""
        return next((form for form in self.forms if self._is_full(form, example)), None)

    def _is_full(self, form: tuple[str, ...], example: Example) -> bool:
        return all(example.has(name) or (name in self.may_be_empty and name in example.fields) for name in form)

    def __str__(self) -> str:
        return ", or ".join(_listed(form) for form in self.forms)


@dataclass(frozen=True, slots=True)
class Example:
    """A record's wanted fields; `place` is its file and line, for messages."""

    place: str
    fields: Mapping[str, object]
    unit: str | None = None

    @property
    def content(self) -> str:
        """The fields as text: equal for equal records, in whatever file and format they stand."""
        return (
            json.dumps(self.fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            .encode("utf-8", "replace")
            .decode()
        )

    def has(self, name: str) -> bool:
        """Whether there is anything in the field."""
        value = self.fields.get(name)
        return bool(value.strip()) if isinstance(value, str) else value is not None

    def text(self, name: str) -> str:
        """
        Raises:
            UnreadableData: the field holds something other than text.
        """
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return clean(value)

    def word(self, name: str) -> str:
        """A short value: text without space around it, or a whole number as text, so that 1 and "1" are one.

        Raises:
            UnreadableData: it is neither.
        """
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.wrong(name, "text or a number")
        return unit_of(value) or ""

    def wrong(self, name: str, expected: str) -> UnreadableData:
        """What to say about a field that holds something else than it should."""
        return UnreadableData(f"{self.place} holds something other than {expected} in field {name!r}.")


def read_examples(folder: Path, wanted: Wanted, *, unit_field: str | None = None) -> Iterator[Example]:
    """The records of a folder (or of one file), by ascending bytes of their paths and then in their order.

    Raises:
        UsageError: `folder` does not exist, or is a file of a format that is not read.
        UnreadableData: a file has no fields or breaks its format, or a record lacks a required field or its unit.
        StorageFailure: a file cannot be read.
    """
    for found in survey_examples(folder, wanted, unit_field=unit_field):
        if isinstance(found, UnreadableData):
            raise found
        if isinstance(found, Example):
            yield found


def survey_examples(
    folder: Path, wanted: Wanted, *, unit_field: str | None = None
) -> Iterator[Path | Example | UnreadableData]:
    """As `read_examples`, with what is wrong as values: so all of it can be told, not only the first.

    Yields:
        Each file's path and then its records; an error in place of a record, or where the file breaks its format.

    Raises:
        UsageError, StorageFailure: as `read_examples`.
    """
    for path, _ in files_in(folder):
        yield path
        read = RECORD_FILES.get(path.suffix.lower())
        if read is None:
            yield UnreadableData(
                f"{path} has no fields, and task {wanted.task} reads {wanted} of each record.",
                "Put files without fields in a data set of their own and say what each is for (llmasos-participant data add "
                "--task), or turn them into .jsonl records.",
            )
            continue
        try:
            yield from read(path, wanted, unit_field)
        except UnreadableData as err:
            yield err


def _read_jsonl(path: Path, wanted: Wanted, unit_field: str | None) -> Iterator[Example | UnreadableData]:
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json_object(line, path, number)
                unit = json_unit(record, unit_field, path, number)
                yield _example(f"{path}:{number}", record, wanted, unit_field, unit)
            except UnreadableData as err:
                yield err


def _read_csv(path: Path, wanted: Wanted, unit_field: str | None) -> Iterator[Example | UnreadableData]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    with open_text(path, newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            if rows.fieldnames is None:
                return
            header = rows.fieldnames
            check_separated(path, header)
            _check_names(f"{path}:1", header, wanted, unit_field)
            twice = next((name for name in (*wanted.names, unit_field) if name and header.count(name) > 1), None)
            if twice is not None:
                raise UnreadableData(f"{path}:1 has {header.count(twice)} columns {twice!r}.")
            for row in rows:
                place = f"{path}:{rows.line_num}"
                if row.get(None) is not None or None in row.values():
                    yield UnreadableData(
                        f"{place} has not as many fields as the header.", "Put texts with commas in quotes."
                    )
                    continue
                try:
                    unit = unit_of(row.get(unit_field)) if unit_field else None
                    yield _example(place, row, wanted, unit_field, unit)
                except UnreadableData as err:
                    yield err
        except csv.Error:
            # Without its cause: the message may quote the field.
            raise UnreadableData(f"{path}:{rows.reader.line_num} is not a CSV record.") from None


def _example(
    place: str, record: Mapping[str, object], wanted: Wanted, unit_field: str | None, unit: str | None
) -> Example:
    _check_names(place, record, wanted, unit_field)
    if unit_field is not None and unit is None:
        raise _without_unit(place, unit_field)
    return Example(place, {name: record[name] for name in wanted.names if name in record}, unit)


def _check_names(place: str, names: Container[str], wanted: Wanted, unit_field: str | None) -> None:
    if not any(all(name in names for name in form) for form in wanted.forms):
        lacking = [name for name in wanted.forms[0] if name not in names]
        raise UnreadableData(
            f"{place} has no field {_listed(lacking)}; task {wanted.task} reads {wanted}.",
            "Name the fields as the plan's task section does, or ask the operator to name yours there; a data set for other "
            "tasks says so: llmasos-participant data add --task.",
        )
    if unit_field is not None and unit_field not in names:
        raise _without_unit(place, unit_field)


def _without_unit(place: str, unit_field: str) -> UnreadableData:
    return UnreadableData(
        f"{place} names no unit: field {unit_field!r} is absent or empty.",
        "Fill the field in, or take the record out: a unit may not stand on both sides of the split.",
    )


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(name) for name in names)


RECORD_FILES: Mapping[str, Callable[[Path, Wanted, str | None], Iterator[Example | UnreadableData]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
"""Formats with fields."""
