"""Codes, classes and docs/errors.md are one list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.errors import InternalError, LLMasOSError, all_errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def ours(base: type[LLMasOSError] = LLMasOSError) -> list[type[LLMasOSError]]:
    """Every class of the family; those that tests define are none of it."""
    found = [base] if base.__module__.split(".")[0] != "tests" else []
    return found + [error for child in base.__subclasses__() for error in ours(child)]


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    headings = parts[1::2]
    assert len(headings) == len(set(headings)), "a heading stands twice"
    return dict(zip(headings, parts[2::2], strict=True))


CODES = sorted({error.code for error in ours()})


def test_every_code_has_one_heading_and_every_heading_a_code() -> None:
    assert sorted(sections()) == CODES


@pytest.mark.parametrize("code", CODES)
def test_a_section_says_status_exit_code_meaning_occasion_and_fix(code: str) -> None:
    text = sections()[code]
    error = all_errors()[code]
    assert f"`{error.status.name}` · exit {error.exit_code}\n" in text
    assert f"*Fix:* {error.default_fix}\n" in text
    assert re.search(r"\n\*When:\* \S", text)
    assert len(text.split("\n\n")[2]) > 20, "what it means"


def test_no_two_classes_share_a_code() -> None:
    classes = [error for error in ours() if error is not InternalError]
    assert len({error.code for error in classes}) == len(classes)


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_kebab_case(code: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", code)
