"""JSON in which one value has one spelling and one reading: what signed payloads and hostile input are read with.

Refused: input above a size or nesting bound (both checked before any parsing), bytes that are no UTF-8, duplicate keys, every
float, NaN and infinity, integers from 2^53 on (other readers would round them), `-0`, lone surrogates, trailing data.

    loads(b'{"b":[1,2],"a":null}', max_bytes=100)   -> {"b": [1, 2], "a": None}
    dumps({"b": [1, 2], "a": None})                 -> b'{"a":null,"b":[1,2]}'
    validate(BlobRef, loads(...))                   -> BlobRef(...), nothing coerced

Source: RFC 8259; RFC 7493 (I-JSON) for the bounds of integers; key order and spelling as in RFC 8785 for what is allowed here,
except that keys sort by code point.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

JsonValue: TypeAlias = "bool | int | str | list[JsonValue] | dict[str, JsonValue] | None"
M = TypeVar("M", bound=BaseModel)

MAX_DEPTH = 32
MAX_INTEGER = 2**53 - 1
_MAX_DIGITS = len(str(MAX_INTEGER))
_MAX_NAMED = 3
"""Faults that one message names."""

# A string, whole or cut off by the end of the data, or one bracket. Every quote starts a match that never backtracks: the scan
# is linear whatever comes.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class StrictJsonError(ValueError):
    """Not JSON as this module defines it; the message says what and, where known, at which character. Never the content."""


def loads(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JsonValue:
    """The value that `data` holds.

    Args:
        data: UTF-8, without byte order mark.
        max_bytes: bound on `len(data)`.
        max_depth: bound on how many arrays and objects enclose a value.

    Raises:
        StrictJsonError: `data` breaks a rule of this module.
    """
    if len(data) > max_bytes:
        raise StrictJsonError(f"{len(data):,} bytes, at most {max_bytes:,} allowed")
    _check_depth(data, max_depth)
    try:
        value: JsonValue = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise StrictJsonError(f"byte {err.start} is not UTF-8") from err
    except json.JSONDecodeError as err:
        raise StrictJsonError(f"not JSON at character {err.pos}: {err.msg}") from err
    if b"\\u" in data:  # the one way by which a lone surrogate passes a UTF-8 decoder
        _check_value(value, max_depth)
    return value


def dumps(value: JsonValue) -> bytes:
    """The canonical spelling of `value`: keys sorted by code point, no spaces, UTF-8 with only the escapes that JSON requires.

    Raises:
        StrictJsonError: `value` holds what `loads` refuses.
    """
    _check_value(value, MAX_DEPTH)
    return spelled(value)


def spelled(value: JsonValue) -> bytes:
    """As `dumps`, of a value that came from `loads` and so holds nothing that is refused: it is not looked at again."""
    return _ENCODER.encode(value).encode("utf-8")


def validate(model: type[M], value: JsonValue) -> M:
    """`value` as a `model`, with nothing coerced: "1", true and 1.0 are no integers.

    Raises:
        StrictJsonError: names the path of each of the first wrong fields and what was expected there.
    """
    return validate_spelled(model, dumps(value))


def validate_spelled(model: type[M], spelling: bytes) -> M:
    """The same, of what `dumps` or `spelled` wrote."""
    try:
        return model.model_validate_json(spelling, strict=True)
    except ValidationError as err:
        raise StrictJsonError(explain(err)) from None  # pydantic's own text would quote the input


def explain(error: ValidationError) -> str:
    """A validation error in one line that quotes nothing of the input but cut-off field names."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    named = [f"{_path(fault['loc'])}: {_printable(fault['msg'], 160)}" for fault in faults[:_MAX_NAMED]]
    more = [f"and {len(faults) - _MAX_NAMED} more"] if len(faults) > _MAX_NAMED else []
    return "; ".join(named + more)


def _path(location: Iterable[int | str]) -> str:
    return ".".join(_printable(str(part), 40) for part in location) or "the value"


def _printable(text: str, max_characters: int) -> str:
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= max_characters else shown[:max_characters] + "…"


def _check_depth(data: bytes, max_depth: int) -> None:
    """Before `json.loads`, whose recursion a hostile nesting would exhaust."""
    if data.count(b"{") + data.count(b"[") <= max_depth:
        return  # so few brackets, within strings or not, cannot nest deeper
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data):
        opener = data[token.start()]
        if opener in b"[{":
            depth += 1
            if depth > max_depth:
                raise StrictJsonError(f"nested deeper than {max_depth} at byte {token.start()}")
        elif opener in b"]}":
            depth -= 1


def _distinct_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise StrictJsonError(f"the key {_printable(twice, 40)!r} stands twice in one object")
    return found


def _bounded_integer(text: str) -> int:
    if len(text.removeprefix("-")) > _MAX_DIGITS:  # before int(), whose time grows with the square of the digits
        raise StrictJsonError(f"an integer of {len(text)} characters, at most ±{MAX_INTEGER} allowed")
    value = int(text)
    if abs(value) > MAX_INTEGER:
        raise StrictJsonError(f"the integer {value}, at most ±{MAX_INTEGER} allowed")
    if value == 0 and text != "0":
        raise StrictJsonError("a negative zero, expected 0")
    return value


def _no_float(text: str) -> NoReturn:
    raise StrictJsonError(f"the number {_printable(text, 40)}, expected integers or decimal text")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_distinct_keys, parse_int=_bounded_integer, parse_float=_no_float, parse_constant=_no_float
)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _check_value(value: Any, depth_left: int) -> None:
    match value:
        case None | bool():
            return
        case str():
            _check_text(value)
        case int():
            if abs(value) > MAX_INTEGER:
                raise StrictJsonError(f"an integer above ±{MAX_INTEGER}")
        case list() | tuple() | dict():
            if depth_left < 1:
                raise StrictJsonError("nested too deeply")
            if isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str):
                        raise StrictJsonError(f"a key of type {type(key).__name__}, expected text")
                    _check_text(key)
            for part in value.values() if isinstance(value, dict) else value:
                _check_value(part, depth_left - 1)
        case _:
            raise StrictJsonError(
                f"a value of type {type(value).__name__}, expected null, boolean, integer, text or a container"
            )


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise StrictJsonError(f"a lone surrogate at character {err.start} of a text") from err
