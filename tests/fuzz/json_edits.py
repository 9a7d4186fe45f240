"""One edit of a JSON value that leaves it JSON: what byte edits hardly ever reach behind a parser.

{"name":"north","roles":["trainer"]}  ->  {"name":"é","roles":["trainer"]}, {"roles":["trainer"]}, {"name":"north","roles":[[]]}
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, -(2**53), 10**30, 0.5, "", "0", "é", "e30é", "\ud800", "a" * 300,
    "2026-02-30T00:00:00.000Z", "NaN", "1e999", [], {}, [[]], {"": None},
)  # fmt: skip
"""What is put in a value's place."""
Place = tuple[Any, Any]
"""A container and the key or index of one of its values."""


def edited(content: bytes, dice: random.Random) -> bytes:
    """`content` with one value changed, left out or doubled; as it was, where it is no JSON container."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    places = list(_places(value))
    if not places:
        return content
    container, key = dice.choice(places)
    match dice.randrange(4):
        case 0:
            del container[key]
        case 1:
            container[key] = _copy(*dice.choice(places))
        case 2 if isinstance(container[key], str) and container[key]:
            container[key] = _spoiled(container[key], dice)
        case _:
            container[key] = dice.choice(VALUES)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[Place]:
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _copy(container: Any, key: Any) -> Any:
    return json.loads(json.dumps(container[key]))


def _spoiled(text: str, dice: random.Random) -> str:
    at = dice.randrange(len(text))
    return text[:at] + dice.choice(("", "é", "\u2028", "0", "-", text)) + text[at + dice.randrange(2) :]
