"""Sentinel strings for private text, and a search for them in everything that a federation leaves on disk or prints.

    birds = Canaries()
    path.write_text(birds.note)                              # planted in the private text
    assert find(birds.all, [coordinator_home, logs]) == []   # nothing of it came out

A sentinel is short and text is made of sentinels only, so that a quotation of twenty letters holds one. It is looked for as it
stands and in every form that programs give to text on the way: UTF-16 and UTF-32, escaped as in JSON, Python, URLs and HTML, in
base64 (at each of its three offsets, wrapped or not) and hexadecimal; in archives, compressed, and in each value of a database.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

_MIN_BASE64 = 8
_MAX_DEPTH = 4
_SPACE = re.compile(rb"\s+")
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Canaries:
    """One sentinel for each place of private text. Umlauts show which escapes are looked for."""

    note: str = "Qjxzv7Kw\u00fcn01"
    """The text itself."""
    record: str = "Qjxzv7Kwrc02"
    """Text of a record that breaks its format."""
    unit: str = "Qjxzv7Kwun03"
    """Whose text it is."""
    field: str = "Qjxzv7Kwfd04"
    """A field's name in a table."""
    file: str = "Qjxzv7Kwfn05"
    """A file's name: may be told in the house."""
    folder: str = "Qjxzv7Kwfo06"
    """A folder's name: may be told in the house."""
    purpose: str = "Qjxzv7Kwpu07"
    """What the institution says the data is for: may be told in the house."""

    @property
    def all(self) -> tuple[str, ...]:
        """What may not leave the house."""
        return (*self.secret, self.file, self.folder, self.purpose)

    @property
    def secret(self) -> tuple[str, ...]:
        """What only the worker and the data folder may hold."""
        return (self.note, self.record, self.unit, self.field)


@dataclass(frozen=True)
class Found:
    """A sentinel somewhere; `form` says as what."""

    sentinel: str
    form: str
    where: str


def forms(sentinel: str) -> dict[str, set[bytes]]:
    """Every shape of a sentinel, by name."""
    as_json = json.dumps(sentinel)[1:-1]
    utf8 = sentinel.encode()
    return {
        "utf-8": {utf8},
        "utf-16": {sentinel.encode("utf-16-le"), sentinel.encode("utf-16-be")},
        "utf-32": {sentinel.encode("utf-32-le"), sentinel.encode("utf-32-be")},
        "latin-1": {sentinel.encode("latin-1", "replace"), sentinel.encode("ascii", "replace")},
        "json": {as_json.encode(), json.dumps(as_json)[1:-1].encode(), as_json.upper().encode()},
        "python": {ascii(sentinel)[1:-1].encode(), repr(utf8)[2:-1].encode()},
        "url": {quote(sentinel).encode(), quote_plus(sentinel).encode(), quote(sentinel).lower().encode()},
        "html": {html.escape(sentinel).encode(), sentinel.encode("ascii", "xmlcharrefreplace")},
        "hex": {utf8.hex().encode(), utf8.hex().upper().encode(), utf8.hex(" ").encode(), utf8.hex(":").encode()},
        "base64": {
            *_base64_forms(utf8),
            *_base64_forms(as_json.encode()),
            *_base64_forms(sentinel.encode("utf-16-le")),
        },
    }


def find(sentinels: Iterable[str], places: Iterable[Path], *, without: Iterable[Path] = ()) -> list[Found]:
    """Every sentinel in the files at or below `places` and in the names of these files; nothing below `without`."""
    needles = _Needles(sentinels)
    left_out = tuple(path.resolve() for path in without)
    found: list[Found] = []
    for place in places:
        for path in sorted([place, *place.rglob("*")] if place.is_dir() else [place]):
            if any(path.resolve().is_relative_to(one) for one in left_out):
                continue
            if path != place:
                found += needles.search(path.name.encode("utf-8", "surrogateescape"), f"name of {path}")
            content = _content(path)
            found += needles.search(content, str(path))
            if content.startswith(_SQLITE):
                found += needles.search_database(path)
    return found


def find_in_text(sentinels: Iterable[str], text: str, where: str) -> list[Found]:
    """The same in what a command printed."""
    return _Needles(sentinels).search(text.encode("utf-8", "surrogatepass"), where)


class _Needles:
    def __init__(self, sentinels: Iterable[str]) -> None:
        self._forms = [(one, form, needle) for one in sentinels for form, all_ in forms(one).items() for needle in all_]

    def search(self, content: bytes, where: str, depth: int = 0) -> list[Found]:
        """Each sentinel once a form; also inside archives and compressed streams."""
        # Wrapped base64 and hexadecimal, and letters made small, are found in these.
        shapes = (content, _SPACE.sub(b"", content), content.lower())
        found = {
            Found(sentinel, form, where)
            for sentinel, form, needle in self._forms
            if needle in shapes[0] or needle in shapes[1] or needle.lower() in shapes[2]
        }
        result = sorted(found, key=lambda one: (one.sentinel, one.form))
        if depth < _MAX_DEPTH:
            for name, inner in _unpacked(content):
                result += self.search(inner, f"{where}!{name}", depth + 1)
        return result

    def search_database(self, path: Path) -> list[Found]:
        """Values that the file's pages may hold in pieces."""
        found: list[Found] = []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            connection.text_factory = bytes
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                    for value in row:
                        if value is not None:
                            content = value if isinstance(value, bytes) else str(value).encode()
                            found += self.search(content, f"{path}:{table.decode()}")
        return found


def _content(path: Path) -> bytes:
    """What the file holds; nothing where it is none, or where a running daemon removed it after it was listed."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


def _base64_forms(content: bytes) -> Iterator[bytes]:
    """The letters that stand for the content wherever it begins; those that its neighbours change are left out."""
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(b"\0" * offset + content + b"\0" * (-(offset + len(content)) % 3))
            first, last = -(-offset * 8 // 6), (offset + len(content)) * 8 // 6
            needle = coded[first:last]
            assert len(needle) >= _MIN_BASE64
            yield needle


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    """What is compressed in there; a tar file is searched as it stands."""
    if content.startswith(b"\x1f\x8b"):
        try:
            yield "gzip", gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return
    elif content[:2] in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        try:
            yield "zlib", zlib.decompress(content)
        except zlib.error:
            return
    elif zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield name, name.encode() + b"\n" + archive.read(name)
