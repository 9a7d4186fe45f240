"""Text that was written in another encoding than UTF-8, noticed before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from common.errors import UnreadableData
from llmasos.datasets.text import Splittable

S = TypeVar("S", bound=Splittable)

MAX_BROKEN = 0.001
"""Share of a document's characters that may be broken: a text that quotes broken bytes is text."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def readable(things: Iterable[S], source: str) -> Iterator[S]:
    """The documents or records as they are, up to the first that is not UTF-8.

    Raises:
        UnreadableData: more than one in a thousand characters of a document could not be decoded, or are NUL, as where
            GB 18030, UTF-16 without its mark, or a binary file is read as UTF-8.
    """
    for thing in things:
        problem = broken(thing, source)
        if problem is not None:
            raise problem
        yield thing


def broken(thing: Splittable, source: str) -> UnreadableData | None:
    """What is wrong where a document or record is not UTF-8, as `readable` has it."""
    content = thing.content
    found = content.count(_BROKEN) + content.count("\0")
    if found <= MAX_BROKEN * len(content):
        return None
    name = getattr(thing, "name", None) or getattr(thing, "place", "A document")
    return UnreadableData(
        f"{name} in {source} is not UTF-8: {found:,} of its {len(content):,} characters are broken.",
        "Convert it from its encoding, as in `iconv -f GB18030 -t UTF-8 OLD > NEW` (or ISO-8859-1), or take it out.",
    )
