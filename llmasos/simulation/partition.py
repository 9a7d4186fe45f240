"""One body of text shared out among virtual institutions: alike (iid), with skewed shares of keys (dirichlet), or by key.

    parts = share_out(documents, parse_partition("dirichlet:100:0.5"), seed=7)       {"v001": [Document, …], …}

A key is a field of .jsonl and .csv files, or else the first folder in a document's path. Written out as folders, so that any
engine, and any other program, finds the same institutions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.errors import StorageFailure, TooLittleData, UsageError
from llmasos.datasets.text import Document, read_documents
from llmasos.simulation.deployment import InstitutionFolder

MIN_DOCUMENTS = 2
"""One to train on and one to measure on."""
_DRAWS = 10
_FORMS = "iid:COUNT, dirichlet:COUNT:ALPHA or key"

Parts = dict[str, list[Document]]


@dataclass(frozen=True, slots=True)
class Partition:
    """How text is shared out. `alpha` is the concentration: small means that an institution has few of the keys."""

    kind: Literal["iid", "dirichlet", "key"]
    count: int = 0
    alpha: float = 0.0


@dataclass(frozen=True, slots=True)
class SharedText:
    """A folder that virtual institutions share. `key` names the field that partitions go by."""

    folder: Path
    how: Partition
    seed: int = 0
    text_column: str | None = None
    key: str | None = None

    def write(self, root: Path) -> tuple[InstitutionFolder, ...]:
        """Share it out below `root`.

        Raises:
            UsageError, TooLittleData, UnreadableData, StorageFailure: about the text, or `root`.
        """
        found = read_documents(self.folder, text_column=self.text_column, unit_field=self.key)
        return write_parts(share_out(found, self.how, seed=self.seed), root)


def parse_partition(text: str) -> Partition:
    """`iid:COUNT`, `dirichlet:COUNT:ALPHA` or `key`, as --partition takes it.

    Raises:
        UsageError: another form, or numbers out of range.
    """
    kind, *numbers = text.split(":")
    try:
        match kind, numbers:
            case "iid", [count] if 1 <= int(count) <= 100_000:
                return Partition("iid", int(count))
            case "dirichlet", [count, alpha] if 1 <= int(count) <= 100_000 and 0 < float(alpha) < 1e6:
                return Partition("dirichlet", int(count), float(alpha))
            case "key", []:
                return Partition("key")
    except ValueError:
        pass
    raise UsageError(f"partition: expected {_FORMS}, got {text!r}.")


def share_out(documents: Iterable[Document], how: Partition, *, seed: int) -> Parts:
    """Every document to one institution; a function of documents, `how` and `seed`.

    Raises:
        TooLittleData: an institution would have fewer than MIN_DOCUMENTS; says how many of how many.
    """
    found = list(documents)
    if how.count and len(found) < MIN_DOCUMENTS * how.count:
        raise TooLittleData(
            f"{len(found):,} documents are too few for {how.count:,} institutions with at least {MIN_DOCUMENTS} each."
        )
    match how.kind:
        case "iid":
            return _checked(_iid(found, how.count, seed))
        case "key":
            return _checked(_by_key(found))
        case "dirichlet":
            return _dirichlet(found, how, seed)


def write_parts(parts: Parts, root: Path) -> tuple[InstitutionFolder, ...]:
    """ROOT/NAME/text.jsonl for each institution, owner-only.

    Raises:
        StorageFailure: they cannot be written.
    """
    folders = []
    try:
        for name, documents in parts.items():
            folder = root / name
            folder.mkdir(mode=0o700, parents=True)
            with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps({"text": one.text, "name": one.name}) + "\n" for one in documents)
            folders.append(InstitutionFolder(name, folder))
    except OSError as err:
        raise StorageFailure(f"{root} could not be written: {err.strerror or err}.") from err
    return tuple(folders)


def key_of(document: Document) -> str:
    """Its field's value, else the first folder of its path, else nothing."""
    if document.unit is not None:
        return document.unit
    folder, slash, _ = document.name.partition("/")
    return folder if slash else ""


def _names(count: int) -> list[str]:
    width = len(str(count))
    return [f"v{number:0{width}d}" for number in range(1, count + 1)]


def _iid(documents: Sequence[Document], count: int, seed: int) -> Parts:
    """Shuffled and dealt out: sizes differ by one at most."""
    order = np.random.default_rng(seed).permutation(len(documents))
    return {name: [documents[i] for i in order[place::count]] for place, name in enumerate(_names(count))}


def _by_key(documents: Sequence[Document]) -> Parts:
    """An institution for each key, in the order of keys."""
    keys = _grouped(documents)
    return dict(zip(_names(len(keys)), keys.values(), strict=True))


def _dirichlet(documents: Sequence[Document], how: Partition, seed: int) -> Parts:
    """For each key, shares of its documents over institutions from Dir(α · 1): drawn anew until nobody has too little.

    Source: Yurochkin et al., arXiv:1905.12022, section 4 (p_k ~ Dir_J(α), a share p_kj of class k to institution j).

    Raises:
        TooLittleData: after _DRAWS draws still somebody has.
    """
    chosen, fewest = np.random.default_rng(seed), how.count
    for _ in range(_DRAWS):
        parts: Parts = {name: [] for name in _names(how.count)}
        for group in _grouped(documents).values():
            shares = chosen.dirichlet(np.full(how.count, how.alpha))
            order = [group[i] for i in chosen.permutation(len(group))]
            borders = (np.cumsum(shares)[:-1] * len(order)).astype(int)
            for name, piece in zip(parts, np.split(np.arange(len(order)), borders), strict=True):
                parts[name] += [order[i] for i in piece]
        poor = sum(len(part) < MIN_DOCUMENTS for part in parts.values())
        if not poor:
            return parts
        fewest = min(fewest, poor)
    raise TooLittleData(
        f"dirichlet:{how.count}:{how.alpha:g} leaves at least {fewest:,} of {how.count:,} institutions with fewer than "
        f"{MIN_DOCUMENTS} documents, in each of {_DRAWS} draws; there are {len(documents):,} documents.",
        "Name fewer institutions, a larger ALPHA, or give more text.",
    )


def _grouped(documents: Sequence[Document]) -> Mapping[str, list[Document]]:
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(key_of(document), []).append(document)
    return dict(sorted(groups.items()))


def _checked(parts: Parts) -> Parts:
    poor = [name for name, part in parts.items() if len(part) < MIN_DOCUMENTS]
    if poor:
        raise TooLittleData(
            f"{len(poor):,} of {len(parts):,} institutions would have fewer than {MIN_DOCUMENTS} documents."
        )
    return parts
