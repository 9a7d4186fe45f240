"""What a fuzz target is, and a short deterministic way to try one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

from common.errors import InternalError, LLMasOSError
from common.strict_json import StrictJsonError
from tests.fuzz.json_edits import edited
from tests.fuzz.names import FOLDER

MOST_EDITS = 5
TOKENS = (
    b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\x00\x00\x00\x80",
    b"0", b"-1", b"1e9", b"9007199254740992", b"99999999999999999999", b'"', b"{", b"[", b"null", b"\\u0000", b"\\ud800",
    "\u2014 ".encode(), "é".encode(), b"\n", b"\n\n", b" ", b"=", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
)  # fmt: skip
"""Pieces that parsers stumble over."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of bytes that others send."""

    entry: Callable[[bytes], object]
    """Reads any bytes, and checks what must hold of those that are taken. Raises only errors of ours."""
    seeds: Sequence[bytes]
    """Bytes that are read to their end; mutations begin with them."""
    max_bytes: int = 64 * 1024
    is_json: bool = False
    """Whether what follows the first byte is often JSON, so that edits of its values reach further than edits of bytes."""


def load(name: str) -> Target:
    """The target of that name."""
    target: Target = import_module(f"tests.fuzz.targets.{name}").TARGET
    return target


def stored(kind: str, name: str) -> list[bytes]:
    """The files of `seeds` or `found` for a target, by name."""
    return [path.read_bytes() for path in sorted((FOLDER / kind / name).glob("*"))]


def attempt(target: Target, data: bytes) -> bool:
    """Whether the target takes these bytes. Anything but a refusal that says what is wrong with them is raised."""
    try:
        target.entry(data)
    except InternalError:
        raise
    except (LLMasOSError, StrictJsonError):
        return False
    return True


def mutations(target: Target, seed: int) -> Iterator[bytes]:
    """Seeds with some edits, without end; the same for the same `seed`."""
    dice = random.Random(seed)
    while True:
        data = bytearray(dice.choice(target.seeds))
        if target.is_json and dice.random() < 0.5:
            yield json_mutation(bytes(data), dice)[: target.max_bytes]
            continue
        for _ in range(dice.randint(1, MOST_EDITS)):
            _edit(data, dice, target.seeds)
        yield bytes(data[: target.max_bytes])


def json_mutation(data: bytes, dice: random.Random) -> bytes:
    """The JSON behind the first byte with one or two of its values changed."""
    content = edited(data[1:], dice)
    return data[:1] + (edited(content, dice) if dice.random() < 0.3 else content)


def _edit(data: bytearray, dice: random.Random, seeds: Sequence[bytes]) -> None:
    at = dice.randint(0, len(data))
    end = min(len(data), at + dice.choice((1, 1, 2, 4, 8, 64)))
    match dice.randrange(12):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at:end] = dice.choice(TOKENS)
        case 2:
            data[at:at] = dice.choice(TOKENS)
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * dice.choice((1, 2, 100))
        case 5 | 6 | 7:
            other = dice.choice(seeds)
            start = dice.randint(0, len(other))
            data[at:end] = other[start : start + dice.choice((4, 32, 256))]
        case 8:
            del data[at:]
        case 9 if at < len(data):
            data[at] = dice.randrange(256)
        case _:
            data[at:end] = dice.randbytes(end - at)
