"""`llmasos verify FOLDER`: what it needs, and what it says of parties that were shown different things."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.terminal import exit_code_of
from llmasos.cli import app
from llmasos.commands.verify import Side, _forks


def side(who: str, entries: int, root: str) -> Side:
    return Side(who, {"result": "verified", "entries": entries, "root": root, "checks": []})


def test_a_folder_that_no_simulation_wrote_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app, ["verify", str(tmp_path)]) == 2
    assert "is not a simulation's folder" in capsys.readouterr().err


def test_equal_lengths_with_other_roots_are_two_histories() -> None:
    assert _forks([side("a", 5, "11"), side("b", 5, "11"), side("c", 4, "22")]) == []
    (fork,) = _forks([side("a", 5, "11"), side("b", 5, "22")])
    assert fork == "FAILED  a and b hold two histories of 5 entries."
