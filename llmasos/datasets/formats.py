"""One reader a file format: a path in, the texts of its documents out, each with its place in the file.

    .txt .md .py     the file is one document
    .jsonl           each line is a JSON object, the named column one document
    .csv             each record is a document, the first record names the columns

To add a format: one function here, one line in READERS. No message carries any of the text, nor a name of a field that was
found: in a file without a header those would be data.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from common.errors import StorageFailure, UnreadableData

DEFAULT_COLUMN = "text"
MAX_FIELD_CHARACTERS = 2**30
"""Python's csv refuses fields above 131,072 characters unless told otherwise; a document may be a book."""

READABLE = "The user that this program runs as must be able to read the whole folder."

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Place = str
"""Where in its file a document stands: empty, or the number of its line."""

Reader = Callable[[Path, str], Iterator[tuple[Place, str]]]


def read_whole(path: Path, column: str) -> Iterator[tuple[Place, str]]:
    """The file as one document; `column` means nothing here."""
    del column
    with _open(path, newline=None) as file:
        yield "", file.read()


def read_jsonl(path: Path, column: str) -> Iterator[tuple[Place, str]]:
    """Field `column` of each line's object; empty lines and null fields are passed over.

    Raises:
        UnreadableData: a line is not a JSON object, lacks the column, or holds something other than text there.
    """
    with _open(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            text = _field(_json_object(line, path, number), column, path, number)
            if text is not None:
                yield str(number), text


def read_csv(path: Path, column: str) -> Iterator[tuple[Place, str]]:
    """Field `column` of each record after the header.

    Raises:
        UnreadableData: the header lacks the column, a record ends before it, or the quoting is broken.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    with _open(path, newline="") as file:
        rows = csv.DictReader(file)
        try:
            if rows.fieldnames is None:
                return
            if column not in rows.fieldnames:
                raise _no_column(path, 1, column)
            for row in rows:
                text = row[column]
                if text is None:
                    raise UnreadableData(f"{path}:{rows.line_num} ends before column {column!r}.")
                yield str(rows.line_num), text
        except csv.Error:
            # Without its cause: the message may quote the field.
            raise UnreadableData(f"{path}:{rows.reader.line_num} is not a CSV record.") from None


READERS: Mapping[str, Reader] = {
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".md": read_whole,
    ".py": read_whole,
    ".txt": read_whole,
}


def _json_object(line: str, path: Path, number: int) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # Without its cause: the decoder's error carries the line itself.
        raise UnreadableData(f"{path}:{number} is not a line of JSON.") from None
    if not isinstance(value, dict):
        raise UnreadableData(f"{path}:{number} is not a JSON object.")
    return value


def _field(record: dict[str, object], column: str, path: Path, number: int) -> str | None:
    if column not in record:
        raise _no_column(path, number, column)
    value = record[column]
    if value is not None and not isinstance(value, str):
        raise UnreadableData(f"{path}:{number} holds something other than text in column {column!r}.")
    return value


def _no_column(path: Path, number: int, column: str) -> UnreadableData:
    return UnreadableData(
        f"{path}:{number} has no column {column!r}.", "Name the column that holds the text: --text-column."
    )


def _open(path: Path, *, newline: str | None) -> TextIO:
    """Open as UTF-8, or as the byte order mark says; bytes that are no text become U+FFFD."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        encoding = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
        return path.open(encoding=encoding, errors="replace", newline=newline)
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.", READABLE) from err
