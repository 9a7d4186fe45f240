"""The events that the daemons log and docs/events.md are one list: names, levels and fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "events.md"
PACKAGES = ("common", "coordinator", "participant")
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
WORKER = ROOT / "participant" / "worker"
"""Its lines go to worker.log, as text for people."""
COLUMNS = 5


@dataclass(frozen=True)
class Call:
    """One `log.<level>(…)` in the source."""

    where: str
    event: ast.expr | None
    level: str
    extra: ast.expr | None

    @property
    def name(self) -> str | None:
        """The event, where it is a fixed phrase."""
        fixed = isinstance(self.event, ast.Constant) and isinstance(self.event.value, str)
        return str(self.event.value) if fixed and isinstance(self.event, ast.Constant) else None

    @property
    def fields(self) -> set[str] | None:
        """Names in `extra`, where it is a plain dictionary; entries that it takes over from another one are not seen."""
        if self.extra is None:
            return set()
        if not isinstance(self.extra, ast.Dict):
            return None
        return {str(key.value) for key in self.extra.keys if isinstance(key, ast.Constant)}


@dataclass
class Row:
    """An event on the page."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    meaning: str = ""


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if WORKER not in path.parents:
                yield path


def calls() -> list[Call]:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("log", "logger")
                and node.func.attr in LEVELS
            ):
                extra = next((word.value for word in node.keywords if word.arg == "extra"), None)
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                found.append(Call(where, node.args[0] if node.args else None, LEVELS[node.func.attr], extra))
    return found


def page() -> dict[str, Row]:
    """The page's tables: | `event` | LEVEL | who | fields | meaning |."""
    rows: dict[str, Row] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`([^`]+)`", cells[0])
        if not line.startswith("|") or name is None:
            continue
        assert len(cells) == COLUMNS, line
        assert name[1] not in rows, f"{name[1]} stands twice"
        rows[name[1]] = Row(set(cells[1].split(" or ")), set(re.findall(r"`([^`]+)`", cells[3])), cells[4])
    return rows


CALLS = calls()


def test_every_event_is_a_fixed_phrase_without_arguments() -> None:
    assert [call.where for call in CALLS if call.name is None] == []
    odd = {call.name: call.where for call in CALLS if call.name and not re.fullmatch(r"[a-z][a-z' -]{2,59}", call.name)}
    assert odd == {}


def test_the_page_lists_every_event_and_no_other() -> None:
    logged = {call.name for call in CALLS}
    assert {"missing": sorted(filter(None, logged - set(page()))), "stale": sorted(set(page()) - logged)} == {
        "missing": [],
        "stale": [],
    }


@pytest.mark.parametrize("event", sorted({call.name for call in CALLS if call.name}))
def test_an_event_has_its_level_its_fields_and_a_meaning(event: str) -> None:
    row = page().get(event)
    assert row is not None, f"docs/events.md has no row for {event!r}"
    mine = [call for call in CALLS if call.name == event]
    assert row.levels == {call.level for call in mine}
    known: set[str] = set().union(*(call.fields or set() for call in mine))
    assert known <= row.fields, [call.where for call in mine]
    if all(call.extra is None or (isinstance(call.extra, ast.Dict) and None not in call.extra.keys) for call in mine):
        assert row.fields == known
    assert len(row.meaning) > 10
