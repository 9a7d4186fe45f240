"""Small folders of synthetic records: institutions whose words differ, with something in them that can be learned."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.texts import NAMES, make_text

LABELS = ("calm", "loud")

Record = dict[str, Any]


def make_records(
    root: Path, make: Callable[[str, int], Record], *, count: int = 3, records: int = 40, form: str = "jsonl"
) -> dict[str, Path]:
    """`count` folders of one file of `records` records each, by institution's name; a pure function of the arguments."""
    folders = {}
    for name in NAMES[:count]:
        folders[name] = root / name
        folders[name].mkdir(parents=True)
        write_records(folders[name] / f"records.{form}", [make(name, number) for number in range(records)])
    return folders


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """A .jsonl or .csv file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
        else:
            file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def words(name: str, number: int, count: int = 4) -> list[str]:
    return make_text(name, words=count, seed=number).split()


def a_translation(name: str, number: int) -> Record:
    """The target has the source's words in upper case."""
    text = " ".join(words(name, number, 3))
    return {"source": text, "target": text.upper()}


def a_labelled_text(name: str, number: int) -> Record:
    """Loud texts begin with a cry."""
    loud = random.Random(number).random() < 0.5
    return {"text": ("!!! " if loud else "... ") + " ".join(words(name, number, 2)), "label": LABELS[loud]}


def a_conversation(name: str, number: int) -> Record:
    """The assistant repeats what the user says; every third record is a prompt and its response."""
    said = words(name, number, 1)[0]
    if number % 3 == 0:
        return {"prompt": said, "response": said}
    return {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": said}]}


def a_question(name: str, number: int) -> Record:
    """The answer is the word in brackets; in every fourth text there is none."""
    said = words(name, number, 3)
    place = number % 4
    answer = said[place] if place < 3 else ""
    context = " ".join(f"({word})" if word == answer else word for word in said)
    return {"question": "?", "context": context, "answer": answer}


def a_preference(name: str, number: int) -> Record:
    """Answers in capitals are better."""
    said = words(name, number, 1)[0]
    return {"prompt": said, "chosen": said.upper(), "rejected": said}
