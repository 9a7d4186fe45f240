"""YAML as configuration needs it: one document, plain data, and the line on which each value stands.

    read("rounds: 3\n", source="plan.yaml")  →  Document(value={"rounds": 3}, lines={(): 1, ("rounds",): 1})

The tags are those of the YAML 1.2 core schema, so that `no` is a word, `1e-3` a number and `7443:30` not a sexagesimal;
a number with a fraction becomes a Decimal with the digits that were written. Duplicate keys, other tags and merge keys
are refused. Size, depth and number of values, aliases expanded, are bounded: no file exhausts memory or the stack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from common.errors import InvalidConfiguration

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 50_000

_TAG = "tag:yaml.org,2002:"
Path = tuple[str | int, ...]

_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the implicit tags of the core schema only, added below."""


class _CoreDumper(yaml.SafeDumper):
    """SafeDumper that also quotes what the core schema would read as something else than text."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_CoreLoader.yaml_implicit_resolvers = {}
_CoreDumper.yaml_implicit_resolvers = {
    first: list(rows) for first, rows in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
for _name, _pattern, _first in _RESOLVERS:
    _expression = re.compile(rf"(?:{_pattern})\Z")
    _letters = ["" if letter == "\0" else letter for letter in _first]
    _CoreLoader.add_implicit_resolver(_TAG + _name, _expression, _letters)
    _CoreDumper.add_implicit_resolver(_TAG + _name, _expression, _letters)


def _represent_decimal(dumper: yaml.SafeDumper, value: Decimal) -> yaml.ScalarNode:
    text = format(value, "f")
    return dumper.represent_scalar(_TAG + ("float" if "." in text else "int"), text)


_CoreDumper.add_representer(Decimal, _represent_decimal)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data (dict, list, str, int, Decimal, bool, None) and the line, from 1, of each path into it."""

    value: Any
    lines: Mapping[Path, int]


def read(text: str, *, source: str) -> Document:
    """The one document in `text`; `source` names it in errors. An empty text is an empty mapping.

    Raises:
        InvalidConfiguration: not YAML, not one document, or beyond the bounds; file and line are named.
    """
    if len(text.encode()) > MAX_BYTES:
        raise InvalidConfiguration(f"{source}: expected at most {MAX_BYTES:,} bytes, got {len(text.encode()):,}.")
    try:
        _check_bounds(text, source)
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = (error.problem or error.context or "it cannot be read").removeprefix("but ")
        raise InvalidConfiguration(f"{source}:{line}: expected YAML, but {problem}.") from error
    except yaml.YAMLError as error:
        raise InvalidConfiguration(f"{source}: expected YAML, but {' '.join(str(error).split())}.") from error
    if node is None:
        return Document({}, {(): 1})
    builder = _Builder(source)
    return Document(builder.build(node, ()), builder.lines)


def dump(value: Any) -> str:
    """Block-style YAML that `read` gives back as it was; keys keep their order."""
    return yaml.dump(value, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=100)


def _check_bounds(text: str, source: str) -> None:
    """Depth and size from the event stream, which is made one by one, before any recursion."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            values += 1
        line = event.start_mark.line + 1 if event.start_mark else 1
        if depth > MAX_DEPTH:
            raise InvalidConfiguration(f"{source}:{line}: expected at most {MAX_DEPTH} levels, got more.")
        if values > MAX_VALUES:
            raise InvalidConfiguration(f"{source}:{line}: expected at most {MAX_VALUES:,} values, got more.")


@dataclass(slots=True)
class _Builder:
    """Turns a node graph into data. Aliases are walked again each time, so what they expand to counts."""

    source: str
    lines: dict[Path, int] = field(default_factory=dict)
    values: int = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.values += 1
        if self.values > MAX_VALUES or len(path) > MAX_DEPTH:
            raise self.refuse(line, f"expected at most {MAX_VALUES:,} values in {MAX_DEPTH} levels, aliases included")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, line)
        raise self.refuse(line, f"expected plain data, got the tag {node.tag}")

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refuse(line, "expected a word as field name, got a collection")
            key = str(key_node.value)
            here = (*path, key)
            if key == "<<":
                raise self.refuse(line, "merge keys (<<) are not supported: write the fields out")
            if key in result:
                raise self.refuse(line, f"the field {key!r} stands twice, first on line {self.lines[here]}")
            self.lines[here] = line
            result[key] = self.build(child, here)
        return result

    def scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                if len(text) > 40:
                    raise self.refuse(line, f"expected a number of at most 40 digits, got {len(text)}")
                return int(text.replace("_", ""))
            case "float":
                return Decimal(text.replace("_", ""))
        raise self.refuse(line, f"expected plain data, got the tag {node.tag}")

    def refuse(self, line: int, problem: str) -> InvalidConfiguration:
        return InvalidConfiguration(f"{self.source}:{line}: {problem}.")
