"""A folder of text as documents, and their split into training and held-out.

    documents = read_documents(Path("/data/notes"), text_column="note")
    train, held_out = split_documents(documents, 0.1, seed=plan.seed, source="/data/notes")

Order and split depend on names and content alone: not on the file system, not on when a file was written.
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

from common.errors import StorageFailure, TooLittleData, UsageError
from llmasos.datasets.formats import DEFAULT_COLUMN, READABLE, READERS

_SPLIT_CONTEXT = b"llmasos/v1/held-out\0"
_RANKS = 2**64


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and a name for people: its path in the folder, with `:line` where a file holds several."""

    name: str
    text: str


def read_documents(folder: Path, *, text_column: str | None = None) -> Iterator[Document]:
    """The documents of a folder (or of one file), by ascending bytes of their paths; documents without text are left out.

    Read are the formats of llmasos.datasets.formats, in subfolders too. Left out are hidden files and folders, and symbolic
    links that lead out of the folder, so that a link cannot bring in what the institution did not offer. Text that is not
    UTF-8 is read with U+FFFD in place of what is broken; line ends become "\\n".

    Args:
        text_column: the field of .jsonl and .csv files that holds the text; "text" by default.

    Raises:
        UsageError: `folder` does not exist, or is a file of a format that is not read.
        UnreadableData: a file breaks its format.
        StorageFailure: a file cannot be read.
    """
    column = text_column or DEFAULT_COLUMN
    for path, name in _files(folder):
        for place, text in READERS[path.suffix.lower()](path, column):
            if text.strip():
                yield Document(_clean(f"{name}:{place}" if place else name), _clean(text))


def split_documents(
    documents: Iterable[Document], held_out_fraction: Decimal | float, *, seed: int, source: str = "the data"
) -> tuple[list[Document], list[Document]]:
    """Split into (train, held-out), each at least one document, both in the order given.

    A document is held out when SHA-256("llmasos/v1/held-out" ‖ 0x00 ‖ seed (8 bytes, little-endian) ‖ text), its first 8 bytes
    read as a fraction of 2^64, is below `held_out_fraction`. So documents never change sides when others are added, and equal
    documents are on the same side. Where that would leave a side empty, the document nearest to it goes there; a single
    document is cut by lines, its end held out.

    Raises:
        TooLittleData: no documents, or a single one of one character; names `source`.
    """
    fraction = Fraction(str(held_out_fraction))  # by its digits: 0.1 is a tenth
    ranked = [(_rank(document.text, seed), document) for document in documents]
    if not ranked:
        raise TooLittleData(f"{source} holds no text: 0 documents, at least 1 is needed.")
    if len(ranked) == 1:
        return _cut(ranked[0][1], fraction, source)
    ranks = [rank for rank, _ in ranked]
    held_out = {index for index, rank in enumerate(ranks) if rank < fraction * _RANKS}
    if not held_out:
        held_out = {ranks.index(min(ranks))}
    elif len(held_out) == len(ranked):
        held_out.remove(ranks.index(max(ranks)))
    return (
        [document for index, (_, document) in enumerate(ranked) if index not in held_out],
        [document for index, (_, document) in enumerate(ranked) if index in held_out],
    )


def _rank(text: str, seed: int) -> int:
    digest = hashlib.sha256(_SPLIT_CONTEXT + seed.to_bytes(8, "little") + text.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _cut(document: Document, held_out_fraction: Fraction, source: str) -> tuple[list[Document], list[Document]]:
    pieces: list[str] | str = document.text.splitlines(keepends=True)
    if len(pieces) < 2:
        pieces = document.text  # one long line: cut between characters
    if len(pieces) < 2:
        raise TooLittleData(f"{source} holds one document of one character, too little to hold any of it out.")
    at = min(max(int(len(pieces) * (1 - held_out_fraction)), 1), len(pieces) - 1)
    train, held_out = "".join(pieces[:at]), "".join(pieces[at:])
    return [Document(f"{document.name}#train", train)], [Document(f"{document.name}#held-out", held_out)]


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files to read, with their names inside the folder, in the order of the names' bytes."""
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


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON escapes and file names may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
