"""spin finds nothing in round.pml at its small size, and finds each mistake by the promise that it breaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.model.checking import LACKING, MISTAKES, MODEL, SMALL, check

pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING or "spin is here")

BROKEN = {
    "ACKNOWLEDGES_FIRST": "taken[",
    "TAKES_WHAT_IS_LATE": "inputs[",
    "TAKES_OVER": "held[",
    "SENDS_FIRST": "signatures[",
    "COMMITS_ALWAYS": "committed[",
    "WAITS_FOR_ALL": "acceptance cycle",
}
"""What spin names: a word of the promise."""


@pytest.mark.parametrize("name", list(SMALL))
def test_every_promise_holds_in_every_state(tmp_path: Path, name: str) -> None:
    verdict = check(SMALL[name], tmp_path)
    assert verdict.broken == ""
    assert verdict.states > 10_000


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_breaks_its_promise(tmp_path: Path, name: str) -> None:
    assert BROKEN[name] in check(MISTAKES[name], tmp_path).broken


def test_every_mistake_is_tried() -> None:
    assert set(BROKEN) == set(MISTAKES) == set(re.findall(r"MUTANT_([A-Z_]+)", MODEL.read_text()))
