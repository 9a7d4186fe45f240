"""One reader a file format: a path in, the texts of its documents out, each with its place in the file.

    .txt .md .py     the file is one document
    .jsonl           each line is a JSON object, the named column one document
    .csv             each record is a document, the first record names the columns

A record may also say whose text it is: its unit, a patient for instance. Units are compared as text, trimmed and in Unicode's
composed form, whole numbers without a fraction: 4711, 4711.0 and " 4711 " are one unit, in whatever format they stand.

To add a format: one function here, one line in READERS. No message carries any of the text, nor a name of a field that was
found: in a file without a header those would be data.
"""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from common.errors import StorageFailure, UnreadableData

DEFAULT_COLUMN = "text"
MAX_FIELD_CHARACTERS = 2**30
"""Python's csv refuses fields above 131,072 characters unless told otherwise; a document may be a book."""

READABLE = "The user that this program runs as must be able to read the whole folder."

_WHOLE_NUMBER = re.compile(r"^(-?\d+)\.0+$")
"""What a table program makes of whole numbers when one of them is absent."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Place = str
"""Where in its file a document stands: empty, or the number of its line."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields of .jsonl and .csv records are read; `unit` None: records name no unit."""

    text: str = DEFAULT_COLUMN
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A document as it stands in its file; `unit` is None where none is asked for, or the record names none."""

    place: Place
    text: str
    unit: str | None = None


Reader = Callable[[Path, Columns], Iterator[Record]]


def read_whole(path: Path, columns: Columns) -> Iterator[Record]:
    """The file as one document; `columns` mean nothing here, so it names no unit."""
    del columns
    with open_text(path, newline=None) as file:
        yield Record("", file.read())


def read_jsonl(path: Path, columns: Columns) -> Iterator[Record]:
    """The text column of each line's object; empty lines and null texts are passed over.

    Raises:
        UnreadableData: a line is not a JSON object, lacks the column, or holds something other than text there; its unit is
            neither text nor a number.
    """
    with open_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = json_object(line, path, number)
            text = _text(record, columns.text, path, number)
            if text is not None:
                yield Record(str(number), text, json_unit(record, columns.unit, path, number))


OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(path: Path, columns: Columns) -> Iterator[Record]:
    """The text column of each record after the header.

    Raises:
        UnreadableData: the header lacks a column, a record ends before the text, or the quoting is broken. Where units are
            read, also: a header with two columns of that name, or a record with more fields than the header, since a comma
            without quotes would give it another's unit.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    with open_text(path, newline="") as file:
        # Strict: a quote that is never closed would make one document of all records after it.
        rows = csv.DictReader(file, strict=True)
        try:
            if rows.fieldnames is None:
                return
            check_separated(path, rows.fieldnames)
            _check_header(rows.fieldnames, columns, path)
            for row in rows:
                place = f"{path}:{rows.line_num}"
                text = row[columns.text]
                if text is None:
                    raise UnreadableData(f"{place} ends before column {columns.text!r}.")
                if columns.unit is not None and row.get(None) is not None:
                    raise UnreadableData(
                        f"{place} has more fields than the header.", "Put texts with commas in quotes."
                    )
                yield Record(str(rows.line_num), text, unit_of(row[columns.unit]) if columns.unit else None)
        except csv.Error:
            # Without its cause: the message may quote the field.
            raise UnreadableData(f"{path}:{rows.reader.line_num} is not a CSV record.") from None


def check_separated(path: Path, header: Sequence[str]) -> None:
    """
    Raises:
        UnreadableData: a single column whose name holds what other programs put between fields.
    """
    separator = next((each for each in OTHER_SEPARATORS if len(header) == 1 and each in header[0]), None)
    if separator is not None:
        raise UnreadableData(
            f"{path}:1 has a single column: its fields are separated by {OTHER_SEPARATORS[separator]}, expected commas.",
            "Write it again with commas, and texts that hold commas in quotes.",
        )


def unit_of(value: str | float | None) -> str | None:
    """What a field says about whose text it is; None where it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = unicodedata.normalize("NFC", str(value)).strip()
    text = _WHOLE_NUMBER.sub(r"\1", text)
    return text.encode("utf-8", "replace").decode() or None


READERS: Mapping[str, Reader] = {
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".md": read_whole,
    ".py": read_whole,
    ".txt": read_whole,
}


def json_object(line: str, path: Path, number: int) -> dict[str, object]:
    """
    Raises:
        UnreadableData: the line is not a JSON object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # Without its cause: the decoder's error carries the line itself.
        raise UnreadableData(f"{path}:{number} is not a line of JSON.") from None
    if not isinstance(value, dict):
        raise UnreadableData(f"{path}:{number} is not a JSON object.")
    return value


def _text(record: dict[str, object], column: str, path: Path, number: int) -> str | None:
    if column not in record:
        raise _no_column(path, number, column, _TEXT_FIX)
    value = record[column]
    if value is not None and not isinstance(value, str):
        raise UnreadableData(f"{path}:{number} holds something other than text in column {column!r}.")
    return value


def json_unit(record: dict[str, object], column: str | None, path: Path, number: int) -> str | None:
    """
    Raises:
        UnreadableData: the unit is neither text nor a number.
    """
    value = record.get(column) if column is not None else None
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise UnreadableData(f"{path}:{number} holds something other than text or a number in column {column!r}.")
    return unit_of(value)


def _check_header(names: Sequence[str], columns: Columns, path: Path) -> None:
    if columns.text not in names:
        raise _no_column(path, 1, columns.text, _TEXT_FIX)
    if columns.unit is not None and columns.unit not in names:
        raise _no_column(path, 1, columns.unit, _UNIT_FIX)
    if columns.unit is not None and names.count(columns.unit) > 1:
        raise UnreadableData(f"{path}:1 has {names.count(columns.unit)} columns {columns.unit!r}.")


_TEXT_FIX = "Name the column that holds the text: --text-column, in Python text_column=…"
_UNIT_FIX = "Name the column that says whose text it is: --unit-field, in Python unit_field=…"


def _no_column(path: Path, number: int, column: str, fix: str) -> UnreadableData:
    return UnreadableData(f"{path}:{number} has no column {column!r}.", fix)


def open_text(path: Path, *, newline: str | None) -> TextIO:
    """Open as UTF-8, or as the byte order mark says; bytes that are no text become U+FFFD."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
        return path.open(encoding=encoding, errors="replace", newline=newline)
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.", READABLE) from err
