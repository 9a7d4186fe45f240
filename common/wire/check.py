"""Presence, range and size of wire fields: each check names the field, what was expected and what came."""

from __future__ import annotations

import re
from typing import Any

from common.errors import MalformedMessage
from common.names import NAME_PATTERN

MAX_INTEGER = 2**53 - 1
_CODE = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")


def present(message: Any, field: str) -> Any:
    """The submessage `field`.

    Raises:
        MalformedMessage: it is absent.
    """
    if not message.HasField(field):
        raise MalformedMessage(f"{_name(message, field)} is absent.")
    return getattr(message, field)


def integer(message: Any, field: str, *, most: int = MAX_INTEGER) -> int:
    """An integer field, 0 to `most`."""
    value = int(getattr(message, field))
    if not 0 <= value <= most:
        raise MalformedMessage(f"{_name(message, field)}: expected 0 to {most:,}, got {value:,}.")
    return value


def exactly(message: Any, field: str, size: int) -> bytes:
    """A bytes field of `size` bytes."""
    value = bytes(getattr(message, field))
    if len(value) != size:
        raise MalformedMessage(f"{_name(message, field)}: expected {size:,} bytes, got {len(value):,}.")
    return value


def at_most(message: Any, field: str, limit: int, *, least: int = 0) -> bytes:
    """A bytes field of `least` to `limit` bytes."""
    value = bytes(getattr(message, field))
    if not least <= len(value) <= limit:
        raise MalformedMessage(f"{_name(message, field)}: expected {least:,} to {limit:,} bytes, got {len(value):,}.")
    return value


def text(message: Any, field: str, *, limit: int = 200, least: int = 0) -> str:
    """A string field of `least` to `limit` characters."""
    value = str(getattr(message, field))
    if not least <= len(value) <= limit:
        raise MalformedMessage(
            f"{_name(message, field)}: expected {least:,} to {limit:,} characters, got {len(value):,}."
        )
    return value


def name(message: Any, field: str) -> str:
    """A string field that is a name: lower-case letters, digits, hyphens."""
    value = str(getattr(message, field))
    if not NAME_PATTERN.match(value):
        raise MalformedMessage(
            f"{_name(message, field)}: expected 1 to 63 lower-case letters, digits and hyphens, got {value[:80]!r}."
        )
    return value


def code(message: Any, field: str) -> str:
    """A string field that is a kebab-case code."""
    value = str(getattr(message, field))
    if not _CODE.match(value):
        raise MalformedMessage(f"{_name(message, field)}: expected a kebab-case code, got {value[:80]!r}.")
    return value


def one_of(message: Any, field: str, allowed: tuple[str, ...]) -> str:
    """A string field with one of the `allowed` values."""
    value = str(getattr(message, field))
    if value not in allowed:
        raise MalformedMessage(f"{_name(message, field)}: expected one of {', '.join(allowed)}, got {value[:80]!r}.")
    return value


def repeated(message: Any, field: str, limit: int) -> Any:
    """A repeated field of at most `limit` elements."""
    values = getattr(message, field)
    if len(values) > limit:
        raise MalformedMessage(f"{_name(message, field)}: expected at most {limit:,} elements, got {len(values):,}.")
    return values


def _name(message: Any, field: str) -> str:
    return f"{message.DESCRIPTOR.name}.{field}"
