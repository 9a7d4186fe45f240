"""Text that was written in another encoding than UTF-8, noticed before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from common.errors import UnreadableData
from llmasos.datasets.text import Document

MAX_BROKEN = 0.001
"""Share of a document's characters that may be broken: a text that quotes broken bytes is text."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def readable(documents: Iterable[Document], source: str) -> Iterator[Document]:
    """The documents as they are, up to the first that is not UTF-8.

    Raises:
        UnreadableData: more than one in a thousand characters of a document could not be decoded, or are NUL, as where
            GB 18030, UTF-16 without its mark, or a binary file is read as UTF-8.
    """
    for document in documents:
        broken = document.text.count(_BROKEN) + document.text.count("\0")
        if broken > MAX_BROKEN * len(document.text):
            raise UnreadableData(
                f"{document.name} in {source} is not UTF-8: {broken:,} of its {len(document.text):,} characters are broken.",
                "Convert it, as in `iconv -f GB18030 -t UTF-8 OLD > NEW`, or take the file out.",
            )
        yield document
