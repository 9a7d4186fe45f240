"""Small corpora as a researcher has them: text, pairs and labelled texts, made from nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ("ein", "zwei", "drei", "vier", "fuenf", "sechs")
NUMBERS = ("one", "two", "three", "four", "five", "six")


def write_pairs(folder: Path, *, count: int = 60, seed: int = 0) -> Path:
    """pairs.jsonl: German numbers and the same in English, word by word."""
    chosen = random.Random(seed)
    records = []
    for _ in range(count):
        drawn = chosen.choices(range(len(WORDS)), k=chosen.randint(1, 4))
        records.append({"german": " ".join(WORDS[i] for i in drawn), "english": " ".join(NUMBERS[i] for i in drawn)})
    return write_records(folder, records, "pairs.jsonl")


def write_labelled(folder: Path, *, count: int = 60, seed: int = 0) -> Path:
    """labelled.jsonl: German or English numbers, and which of the two."""
    chosen = random.Random(seed)
    records = []
    for number in range(count):
        words, label = ((WORDS, "german"), (NUMBERS, "english"))[number % 2]
        records.append({"text": " ".join(chosen.choices(words, k=5)), "label": label})
    return write_records(folder, records, "labelled.jsonl")


def write_records(folder: Path, records: list[dict[str, str]], name: str = "records.jsonl") -> Path:
    """Records as a .jsonl file of a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    return folder
