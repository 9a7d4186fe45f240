"""Splits that the data name themselves: folders or files called train, validation and test, as for the package `datasets`.

corpus/train/…        corpus/dev/…         corpus/test/…
corpus/train.jsonl    corpus/dev.jsonl     corpus/test-00000-of-00002.jsonl
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import UsageError
from llmasos.datasets.text import files_in

SPLITS = ("train", "validation", "test")
WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What `datasets` takes for a split's name."""
_OF_WORD = {word: split for split, words in WORDS.items() for word in words}
_PART = re.compile(r"^(?P<word>[a-z]+)(?:[-_.]\d+(?:-of-\d+)?)?$")
"""A file's name without its ending: a word, perhaps with a number: train-00000-of-00003."""
_PROGRAMS = (".py",)
"""A train.py is a program, and no split."""
_CARDS = ("readme.md",)
"""What describes a data set, and is not of it."""

DataFiles = Mapping[str, str | Path | Sequence[str | Path]]


def named_splits(path: Path, data_files: DataFiles | None) -> dict[str, list[Path]]:
    """Files and folders by split; empty where nothing names any, and a folder is one text to be split.

    A folder names its splits where it holds `train` and one of the others. Files whose format is not read do not count.

    Args:
        data_files: what is in which split, paths in `path`; None: look for names.

    Raises:
        UsageError: no such split, no `train`, one file in two splits, or a file beside named splits that is in none of them.
        StorageFailure: the folder cannot be read.
    """
    return _found(path) if data_files is None else _given(path, data_files)


def _given(path: Path, data_files: DataFiles) -> dict[str, list[Path]]:
    unknown = [name for name in data_files if name not in SPLITS]
    if unknown or "train" not in data_files:
        raise UsageError(
            f"data_files names the splits {', '.join(map(repr, data_files)) or 'none'}, expected 'train', perhaps 'validation' "
            "and 'test'.",
            'As in load_dataset("./corpus", data_files={"train": "a.jsonl", "test": ["b.jsonl", "c.jsonl"]}).',
        )
    named = {
        name: [path / one for one in ([given] if isinstance(given, str | Path) else given)]
        for name, given in data_files.items()
    }
    everything = [one.resolve() for files in named.values() for one in files]
    twice = [one for one in everything if any(other is not one and one.is_relative_to(other) for other in everything)]
    if twice:
        raise UsageError(f"data_files names {twice[0]} twice, or a folder around it.", "Name each file in one split.")
    return named


def _found(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        return {}
    named: dict[str, list[Path]] = {}
    strays = []
    for entry in dict.fromkeys(name.partition("/")[0] for _, name in files_in(path)):
        split = split_named(path / entry)
        if split is not None:
            named.setdefault(split, []).append(path / entry)
        elif entry.lower() not in _CARDS:
            strays.append(entry)
    if "train" not in named or len(named) == 1:
        return {}
    if strays:
        raise UsageError(
            f"{path} names splits, {' and '.join(named)}, and holds {len(strays):,} more that are in none, first {strays[0]}.",
            'Move them, or say what is what: load_dataset(…, data_files={"train": "train", "test": "test"}).',
        )
    return named


def split_named(entry: Path) -> str | None:
    """Which split a file or folder is by its name; None if it is none."""
    if entry.is_dir():
        return _OF_WORD.get(entry.name.lower())
    found = _PART.match(entry.stem.lower())
    return _OF_WORD.get(found["word"]) if found and entry.suffix.lower() not in _PROGRAMS else None
