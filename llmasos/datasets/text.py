"""A folder of text as documents, and their split into training and held-out.

    documents = read_documents(Path("/data/notes"), text_column="note", unit_field="patient_id")
    train, held_out = split_documents(documents, 0.1, seed=plan.seed, source="/data/notes")

Order and split depend on names and content alone: not on the file system, not on when a file was written. A unit, such as a
patient, is never divided: all that belongs to it is on one side. Without a unit field each document is a unit of its own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

from common.errors import StorageFailure, TooLittleData, UnreadableData, UsageError
from llmasos.datasets.formats import DEFAULT_COLUMN, READABLE, READERS, Columns, Record

_SPLIT_CONTEXT = b"llmasos/v1/held-out\0"
_UNIT_CONTEXT = b"llmasos/v1/held-out-unit\0"
_RANKS = 2**64


class Splittable(Protocol):
    """What is on one side of the split: a document, or a record with fields."""

    @property
    def content(self) -> str:
        """What decides its side where it is a unit of its own."""
        ...

    @property
    def unit(self) -> str | None:
        """Whose it is; None: it is a unit of its own."""
        ...


S = TypeVar("S", bound=Splittable)


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and a name for people: its path in the folder, with `:line` where a file holds several.

    `unit` says whose text it is, as llmasos.datasets.formats reads it; None: the document is a unit of its own.
    """

    name: str
    text: str
    unit: str | None = None

    @property
    def content(self) -> str:
        """The text, which decides its side."""
        return self.text


def read_documents(
    folder: Path, *, text_column: str | None = None, unit_field: str | None = None
) -> Iterator[Document]:
    """The documents of a folder (or of one file), by ascending bytes of their paths; documents without text are left out.

    Read are the formats of llmasos.datasets.formats, in subfolders too. Left out are hidden files and folders, and symbolic
    links that lead out of the folder, so that a link cannot bring in what the institution did not offer. Text that is not
    UTF-8 is read with U+FFFD in place of what is broken; line ends become "\\n".

    Args:
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.
        unit_field: their field that says whose text it is; every document must then name its unit.

    Raises:
        UsageError: `folder` does not exist, or is a file of a format that is not read.
        UnreadableData: a file breaks its format, or a document names no unit though `unit_field` is given.
        StorageFailure: a file cannot be read.
    """
    for found in survey(folder, text_column=text_column, unit_field=unit_field):
        if isinstance(found, UnreadableData):
            raise found
        if isinstance(found, Document):
            yield found


def survey(
    folder: Path, *, text_column: str | None = None, unit_field: str | None = None
) -> Iterator[Path | Document | UnreadableData]:
    """As `read_documents`, with what is wrong as values: so all of it can be told, not only the first.

    Yields:
        Each file's path and then its documents; an error where it breaks its format, which ends that file, and an error before
        each document that should name a unit and does not.

    Raises:
        UsageError, StorageFailure: as `read_documents`.
    """
    columns = Columns(text_column or DEFAULT_COLUMN, unit_field)
    for path, name in files_in(folder):
        yield path
        try:
            for record in READERS[path.suffix.lower()](path, columns):
                if not record.text.strip():
                    continue
                if unit_field is not None and record.unit is None:
                    yield _without_unit(path, record, unit_field)
                named = f"{name}:{record.place}" if record.place else name
                yield Document(clean(named), clean(record.text), record.unit)
        except UnreadableData as err:
            yield err


class Units:
    """Units in the order in which they come, each with its place between training and held-out under one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed.to_bytes(8, "little")
        self._ranks: dict[str | int, int] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def add(self, document: Splittable) -> str | int:
        """The key of the document's unit."""
        key = len(self._ranks) if document.unit is None else document.unit
        if key not in self._ranks:
            context, content = (
                (_SPLIT_CONTEXT, document.content) if document.unit is None else (_UNIT_CONTEXT, document.unit)
            )
            digest = hashlib.sha256(context + self._seed + content.encode()).digest()
            self._ranks[key] = int.from_bytes(digest[:8], "big")
        return key

    def held_out(self, fraction: Fraction) -> set[str | int]:
        """Keys of the units that are held out: at least one, and never all of two or more."""
        ranks = self._ranks
        found = {key for key, rank in ranks.items() if rank < fraction * _RANKS}
        if not found and ranks:
            return {min(ranks, key=ranks.__getitem__)}
        if len(found) == len(ranks) > 1:
            found.remove(max(ranks, key=ranks.__getitem__))
        return found


def split_documents(
    documents: Iterable[Document], held_out_fraction: Decimal | float, *, seed: int, source: str = "the data"
) -> tuple[list[Document], list[Document]]:
    """Split into (train, held-out), each at least one document, both in the order given; no unit is on both sides.

    A unit is held out when SHA-256("llmasos/v1/held-out-unit" ‖ 0x00 ‖ seed (8 bytes, little-endian) ‖ unit), its first 8 bytes
    read as a fraction of 2^64, is below `held_out_fraction`; for a document that is a unit of its own, it is
    SHA-256("llmasos/v1/held-out" ‖ 0x00 ‖ seed ‖ text). So units never change sides when others are added, and equal documents
    are on the same side. Where that would leave a side empty, the unit nearest to it goes there; a single document without a
    unit is cut by lines, its end held out.

    Raises:
        TooLittleData: no documents, a single one of one character, or several of a single unit; names `source`.
    """
    kept = list(documents)
    if len(kept) == 1 and kept[0].unit is None:
        return _cut(kept[0], Fraction(str(held_out_fraction)), source)
    return split_units(kept, held_out_fraction, seed=seed, source=source)


def split_units(
    things: Iterable[S], held_out_fraction: Decimal | float, *, seed: int, source: str = "the data"
) -> tuple[list[S], list[S]]:
    """As `split_documents`, of anything that belongs to units, and nothing is cut.

    Raises:
        TooLittleData: nothing, or a single unit; names `source`.
    """
    units = Units(seed)
    kept = [(units.add(thing), thing) for thing in things]
    if not kept:
        raise TooLittleData(f"{source} holds no text: 0 documents, at least 1 is needed.")
    if len(units) == 1:
        raise single_unit(source, len(kept))
    held_out = units.held_out(Fraction(str(held_out_fraction)))  # by its digits: 0.1 is a tenth
    return (
        [thing for key, thing in kept if key not in held_out],
        [thing for key, thing in kept if key in held_out],
    )


def single_unit(source: str, documents: int) -> TooLittleData:
    """What is wrong with data of one unit alone."""
    return TooLittleData(
        f"{source} holds a single unit ({documents:,} documents), at least 2 are needed: "
        "one is trained on, the other held out, and none is divided.",
        "Add text of more units, or check that the unit field names the unit (a patient, not the clinic).",
    )


def _cut(document: Document, held_out_fraction: Fraction, source: str) -> tuple[list[Document], list[Document]]:
    pieces: list[str] | str = document.text.splitlines(keepends=True)
    if len(pieces) < 2:
        pieces = document.text  # one long line: cut between characters
    if len(pieces) < 2:
        raise TooLittleData(f"{source} holds one document of one character, too little to hold any of it out.")
    at = min(max(int(len(pieces) * (1 - held_out_fraction)), 1), len(pieces) - 1)
    train, held_out = "".join(pieces[:at]), "".join(pieces[at:])
    return [Document(f"{document.name}#train", train)], [Document(f"{document.name}#held-out", held_out)]


def _without_unit(path: Path, record: Record, unit_field: str) -> UnreadableData:
    """Without its unit a document could stand on the other side than the rest of what belongs to it."""
    if not record.place:
        return UnreadableData(
            f"{path} has no fields, so it names no unit in field {unit_field!r}.",
            "Put files without fields in a data set of their own, or turn them into .jsonl records with that field.",
        )
    return UnreadableData(
        f"{path}:{record.place} names no unit: field {unit_field!r} is absent or empty.",
        "Fill the field in, or take the record out: a unit may not stand on both sides of the split.",
    )


def files_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files to read, with their names inside the folder, in the order of the names' bytes.

    Raises:
        UsageError, StorageFailure: as `read_documents`.
    """
    if folder.is_file():
        if folder.suffix.lower() not in READERS:
            raise UsageError(f"{folder} is not a format that is read.", f"Read are {', '.join(sorted(READERS))}.")
        yield folder, folder.name
        return
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder of text: it does not exist, or cannot be opened.", "Name another folder."
        )
    root = folder.resolve()
    found = [(path.relative_to(folder).as_posix(), path) for path in _walk(folder)]
    for name, path in sorted(found, key=lambda entry: os.fsencode(entry[0])):
        if _is_own_file(path, root):
            yield path, name


def _walk(folder: Path) -> Iterator[Path]:
    def fail(err: OSError) -> None:
        raise StorageFailure(f"{err.filename} could not be read: {err.strerror or err}.", READABLE) from err

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in READERS:
                yield Path(place) / name


def _is_own_file(path: Path, root: Path) -> bool:
    """A regular file (a pipe would block for ever), and inside the folder, links followed."""
    try:
        return path.resolve().is_relative_to(root) and stat.S_ISREG(path.stat().st_mode)
    except RuntimeError:
        return False  # a link to itself, as pathlib says it
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ELOOP):
            return False  # a link to nothing or to itself, or removed since it was listed
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.", READABLE) from err


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON escapes and file names may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
