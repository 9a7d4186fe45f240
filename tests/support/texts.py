"""Small folders of synthetic text: institutions whose words differ, so that what one learns shows on another's text."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

_SYLLABLES = {
    "clinic": ("car", "dio", "the", "ra", "pi", "ne", "ur", "o", "lo", "gy"),
    "bank": ("cre", "dit", "bon", "d", "lev", "er", "age", "mar", "gin", "al"),
    "laboratory": ("po", "ly", "mer", "ase", "gel", "ti", "trate", "ion", "pH", "mol"),
    "archive": ("par", "ch", "ment", "sig", "il", "ab", "bey", "chron", "ic", "le"),
}
NAMES = tuple(_SYLLABLES)


def make_institutions(
    root: Path, *, count: int = 3, documents: int = 8, words: int = 150, seed: int = 0, form: str = "txt"
) -> dict[str, Path]:
    """`count` folders of `documents` documents each, by institution's name; a pure function of the arguments.

    Args:
        form: "txt", "md" or "py" (a file a document), "jsonl" or "csv" (one file, column "text").
    """
    folders = {}
    for name in NAMES[:count]:
        folders[name] = root / name
        folders[name].mkdir(parents=True)
        texts = [make_text(name, words=words, seed=seed * 1000 + number) for number in range(documents)]
        _WRITERS.get(form, _write_files)(folders[name], texts, form)
    return folders


def make_public_text(root: Path, *, words: int = 400, seed: int = 0) -> Path:
    """A folder with a text of each kind, as a plan's tokenizer names one."""
    root.mkdir(parents=True)
    for name in NAMES:
        (root / f"{name}.txt").write_text(make_text(name, words=words, seed=seed), encoding="utf-8")
    return root


def make_text(kind: str, *, words: int, seed: int) -> str:
    """`words` words of one institution's kind, in lines of eight; some words are much more frequent than others."""
    chosen = random.Random(f"{kind} {seed}")
    vocabulary = random.Random(kind)
    known = ["".join(vocabulary.choices(_SYLLABLES[kind], k=vocabulary.randint(1, 4))) for _ in range(60)]
    weights = [1 / rank for rank in range(1, len(known) + 1)]
    drawn = chosen.choices(known, weights, k=words)
    return "\n".join(" ".join(drawn[first : first + 8]) for first in range(0, words, 8)) + "\n"


def _write_files(folder: Path, texts: list[str], form: str) -> None:
    for number, text in enumerate(texts):
        (folder / f"{number:04d}.{form}").write_text(text, encoding="utf-8")


def _write_jsonl(folder: Path, texts: list[str], form: str) -> None:
    lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
    (folder / f"records.{form}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_csv(folder: Path, texts: list[str], form: str) -> None:
    with (folder / f"records.{form}").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))


_WRITERS: dict[str, Callable[[Path, list[str], str], None]] = {"jsonl": _write_jsonl, "csv": _write_csv}
