"""Names and ids that stand in statements, paths and certificates: one alphabet, checked in one place."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from common.errors import InvalidName

NAME_PATTERN = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_HEX_32 = re.compile(r"[0-9a-f]{64}\Z")


def check_name(value: str) -> str:
    """Return `value` if it is a name: lower-case letters, digits, hyphens, 1 to 63, as in a DNS label.

    Raises:
        InvalidName: otherwise. Path tricks, upper case and look-alike letters end here.
    """
    if not NAME_PATTERN.match(value):
        raise InvalidName(f"{value[:80]!r} is not a name.")
    return value


def _name(value: str) -> str:
    if not NAME_PATTERN.match(value):
        raise ValueError("expected 1 to 63 lower-case letters, digits and hyphens, starting with a letter")
    return value


def _sha256_hex(value: str) -> str:
    if not _HEX_32.match(value):
        raise ValueError("expected 64 lower-case hexadecimal digits")
    return value


Name = Annotated[str, AfterValidator(_name)]
Sha256Hex = Annotated[str, AfterValidator(_sha256_hex)]
