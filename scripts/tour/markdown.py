"""How the tour looks: a step with its prose, the code that it passes, its wire calls and its dumps, as Markdown."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import Any

COLUMNS = 112
SHOWN_DIGITS = 12
_HEX = re.compile(r"[0-9a-f]{64}")
_LONG = 100


@dataclass(frozen=True)
class Call:
    """One RPC with the sizes of its messages, protobuf's own bytes: TLS and HTTP/2 come on top."""

    method: str
    request: int
    reply: int
    carries: str


@dataclass(frozen=True)
class Dump:
    """A message as it was, in a fenced block; with no language a table, as it is."""

    caption: str
    text: str
    language: str = "json"


@dataclass(frozen=True)
class Step:
    """One section of the tour.

    Args:
        passes: (who, `file.py:function`, what it does there), in the order of the way.
    """

    title: str
    text: tuple[str, ...]
    passes: tuple[tuple[str, str, str], ...] = ()
    calls: tuple[Call, ...] = ()
    dumps: tuple[Dump, ...] = ()


def markdown(steps: list[Step]) -> str:
    """All steps, numbered."""
    return "\n\n".join(_step(number, step) for number, step in enumerate(steps, start=1)) + "\n"


def _step(number: int, step: Step) -> str:
    parts = [f"### {number} {step.title}", *(fill(paragraph) for paragraph in step.text)]
    if step.passes:
        rows = [[who, f"`{code}`", does] for who, code, does in step.passes]
        parts.append(table(["who", "code", "does"], rows))
    if step.calls:
        rows = [[f"`{call.method}`", f"{call.request:,}", f"{call.reply:,}", call.carries] for call in step.calls]
        parts.append(table(["call", "request, bytes", "reply, bytes", "carries"], rows))
    for dump in step.dumps:
        parts += [fill(dump.caption), f"```{dump.language}\n{dump.text}\n```" if dump.language else dump.text]
    return "\n\n".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(paragraph: str) -> str:
    """Wrapped prose."""
    return textwrap.fill(" ".join(paragraph.split()), COLUMNS, break_long_words=False, break_on_hyphens=False)


def short(digest: str) -> str:
    """The beginning of a digest, as the tour shows it everywhere."""
    return digest[:SHOWN_DIGITS] + "…"


def pretty(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON for people: what fits on a line stays on one, digests and other long texts are cut."""
    line = json.dumps(_cut(value), ensure_ascii=False)
    if len(line) + indent + used <= COLUMNS or not isinstance(value, dict | list) or not value:
        return line
    pad, end = " " * (indent + 2), "\n" + " " * indent
    if isinstance(value, dict):
        names = ((json.dumps(name) + ": ", member) for name, member in value.items())
        return (
            "{\n" + ",\n".join(pad + name + pretty(member, indent + 2, len(name)) for name, member in names) + end + "}"
        )
    return "[\n" + ",\n".join(pad + pretty(member, indent + 2) for member in value) + end + "]"


def wrapped(text: str) -> str:
    """One long line, broken where the page ends."""
    return "\n".join(text[at : at + COLUMNS] for at in range(0, len(text), COLUMNS))


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _cut(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_cut(member) for member in value]
    if isinstance(value, str) and _HEX.fullmatch(value):
        return short(value)
    if isinstance(value, str) and len(value) > _LONG:
        return f"{value[:40]}… ({len(value)} characters)"
    return value
