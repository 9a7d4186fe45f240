"""Small data that the examples make themselves: three institutions, a folder each, whose words differ.

What there is to learn is simple, so that a small model learns it in a minute: numbers spelled out in two languages.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAMES = ("north", "south", "west")
PLANS = Path(__file__).parent / "plans"
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHINESE = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九")


def arguments(description: str, *, steps: int, given: Sequence[str] | None = None) -> argparse.Namespace:
    """--steps N, --work DIR, --federated."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps, help=f"optimizer steps of the local run (default: {steps})")
    parser.add_argument("--work", type=Path, default=Path("out/examples"), help="folder for data and models")
    parser.add_argument(
        "--federated", action="store_true", help="train with three institutions, by the plan beside this"
    )
    return parser.parse_args(given)


def institutions(work: Path, name: str, record: Callable[[random.Random], Any], *, count: int = 200) -> dict[str, Path]:
    """WORK/NAME/data/INSTITUTION/, each with `count` records (dicts) or documents (texts)."""
    folders = {}
    for number, institution in enumerate(NAMES):
        folder = work / name / "data" / institution
        folder.mkdir(parents=True, exist_ok=True)
        chosen = random.Random(number)
        made = [record(chosen) for _ in range(count)]
        if isinstance(made[0], str):
            for place, text in enumerate(made):
                (folder / f"{place:04d}.txt").write_text(text, encoding="utf-8")
        else:
            lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in made)
            (folder / "records.jsonl").write_text(lines + "\n", encoding="utf-8")
        folders[institution] = folder
    return folders


def numbers(chosen: random.Random, least: int = 2, most: int = 4) -> list[int]:
    return [chosen.randrange(10) for _ in range(chosen.randint(least, most))]


def spelled(words: Sequence[str], digits: Sequence[int]) -> str:
    return " ".join(words[digit] for digit in digits)


def counting(chosen: random.Random, words: Sequence[str] = ENGLISH) -> str:
    """A text in which numbers follow each other, one by one or by twos or threes."""
    first, step = chosen.randrange(10), chosen.randint(1, 3)
    return spelled(words, [(first + step * place) % 10 for place in range(chosen.randint(30, 60))]) + "\n"


def translation(chosen: random.Random) -> dict[str, str]:
    digits = numbers(chosen)
    return {"german": spelled(GERMAN, digits), "english": spelled(ENGLISH, digits)}


def summary(chosen: random.Random) -> dict[str, str]:
    """A report of which the largest number is what counts."""
    digits = numbers(chosen, 3, 5)
    text = "; ".join(f"ward {place} reports {ENGLISH[digit]}" for place, digit in enumerate(digits))
    return {"report": text, "summary": f"at most {ENGLISH[max(digits)]}"}


def question(chosen: random.Random) -> dict[str, str]:
    """Who has which number."""
    names = chosen.sample(("ada", "bo", "chen", "dora"), 3)
    held = dict(zip(names, numbers(chosen, 3, 3), strict=True))
    asked = chosen.choice(names)
    context = " . ".join(f"{name} has {ENGLISH[digit]}" for name, digit in held.items())
    return {"question": f"what has {asked} ?", "context": context, "answer": ENGLISH[held[asked]]}


def dialogue(chosen: random.Random) -> dict[str, str]:
    digit, asks = chosen.randrange(10), chosen.choice(("Please tell", "Say", "I ask", "Quick"))
    prompt = f"{asks} {chosen.randrange(100)}: what comes after {ENGLISH[digit]}?"
    return {"prompt": prompt, "response": f"{ENGLISH[(digit + 1) % 10]}."}


def language(chosen: random.Random) -> dict[str, str]:
    """Which language a text is in."""
    words, label = chosen.choice(((GERMAN, "german"), (ENGLISH, "english")))
    return {"text": spelled(words, numbers(chosen)), "label": label}


def bilingual(chosen: random.Random) -> str:
    """A text in one of two languages, whose characters have another number of bytes."""
    return counting(chosen, chosen.choice((ENGLISH, CHINESE)))
