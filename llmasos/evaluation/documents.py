"""Documents as what a model is measured on: windows, each with the bytes of text that its tokens stand for.

Each document is predicted from its beginning, given the end of another, and to its end, its end-of-document token included.
Where it is longer than the model's context, windows lie end to end: each token is predicted once, from what stands before it in
its window. Bytes are counted of the text, not of the tokens, so that they are the same for every tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.errors import TooLittleData, UsageError
from llmasos.datasets.text import Document, read_documents
from llmasos.datasets.tokens import pieces_of
from llmasos.tokenizers import end_of_document_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNNAMED = "all"
"""The language of documents that name none."""


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens to predict: int64, shape (n + 1,) for n of them; `text_bytes` of the document stand for these n."""

    document: int
    """Which of the documents, from 0."""
    language: str
    tokens: npt.NDArray[np.int64]
    text_bytes: int
    words: int
    """Of the whole document in its first window, 0 in the others."""


@dataclass(frozen=True, slots=True)
class TextSource:
    """What is measured on.

    `language_field` names the field of .jsonl and .csv files with a document's language; without one, it is the first folder in
    a file's path, as in DATA/de/letters.txt.
    """

    folder: Path
    text_column: str | None = None
    language_field: str | None = None


def read_source(source: TextSource) -> list[Document]:
    """All documents of a source; `unit` is the language.

    Raises:
        TooLittleData: no document.
        UsageError, UnreadableData, StorageFailure: as read_documents; also a document that names no language.
    """
    found = list(read_documents(source.folder, text_column=source.text_column, unit_field=source.language_field))
    if not found:
        raise TooLittleData(f"{source.folder} holds no text: 0 documents, at least 1 is needed.")
    return [Document(one.name, one.text, one.unit or first_folder(one.name)) for one in found]


def sampled(documents: Sequence[Document], tokenizer: Tokenizer, max_tokens: int | None, seed: int) -> list[Document]:
    """All documents, or whole ones drawn by `seed` until they have about `max_tokens` tokens, in their order.

    Raises:
        UsageError: `max_tokens` below 1.
    """
    if max_tokens is None:
        return list(documents)
    if max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}, expected 1 or more.")
    taken: list[int] = []
    for index in np.random.Generator(np.random.Philox(seed)).permutation(len(documents)):
        taken.append(int(index))
        max_tokens -= len(tokenizer.encode(documents[index].text, add_special_tokens=False).ids)
        if max_tokens <= 0:
            break
    return [documents[index] for index in sorted(taken)]


def windows_of(documents: Sequence[Document], tokenizer: Tokenizer, length: int) -> Iterator[Window]:
    """The windows of all documents, each of at most `length` predicted tokens."""
    end = end_of_document_id(tokenizer)
    for number, document in enumerate(documents):
        ids, starts = _encoded(document.text, tokenizer)
        tokens = np.asarray([end, *ids, end], dtype=np.int64)
        words = len(document.text.split())
        for first in range(0, len(ids) + 1, length):
            begin = starts[first] if first else 0
            stop = starts[min(first + length, len(ids))]
            yield Window(
                number,
                document.unit or UNNAMED,
                tokens[first : first + length + 1],
                len(document.text[begin:stop].encode()),
                0 if first else words,
            )


def _encoded(text: str, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Token ids as a token file holds them; the character at which each begins, and where the text ends."""
    ids: list[int] = []
    starts: list[int] = []
    at = 0
    for piece, _ in pieces_of(text):
        encoding = tokenizer.encode(piece, add_special_tokens=False)
        ids += encoding.ids
        starts += [at + begin for begin, _ in encoding.offsets]
        at += len(piece)
    return ids, [*starts, len(text)]


def first_folder(name: str) -> str:
    """Of a path below the data's folder; UNNAMED where it is in none."""
    return name.partition("/")[0] if "/" in name else UNNAMED
