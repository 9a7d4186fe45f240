"""`llmasos verify FOLDER`: what it needs, and what it says of parties that were shown different things."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.terminal import exit_code_of
from common.verify.report import Outcome
from llmasos.cli import app
from llmasos.simulation.verification import Side, Verification


def side(who: str, entries: int, root: str) -> Side:
    return Side(who, {"result": "verified", "entries": entries, "root": root, "checks": []})


def test_a_folder_that_no_simulation_wrote_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app, ["verify", str(tmp_path)]) == 2
    assert "is not a simulation's folder" in capsys.readouterr().err


def test_equal_lengths_with_other_roots_are_two_histories() -> None:
    one = Verification((side("a", 5, "11"), side("b", 5, "11"), side("c", 4, "22")))
    assert (one.forks, one.outcome) == ((), Outcome.VERIFIED)
    two = Verification((side("a", 5, "11"), side("b", 5, "22")))
    assert two.findings == ("FAILED  a and b hold two histories of 5 entries.",)
    assert two.outcome is Outcome.FAILED


def test_what_is_asked_of_a_bundle_is_not_asked_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--fingerprint", "00" * 32], ["--pin", f"north={'00' * 32}"], ["--html", str(tmp_path / "r.html")]):
        assert exit_code_of(app, ["verify", str(tmp_path), *words]) == 2
        assert "--fingerprint, --pin and --html are for evidence bundles" in capsys.readouterr().err


def test_a_file_that_is_no_bundle_fails_and_one_that_is_absent_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter").write_text("Dear operator, " * 100)
    assert exit_code_of(app, ["verify", str(tmp_path / "letter")]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "letter is no evidence bundle: at byte 0, it does not begin with llmasos.org/evidence@v1." in shown
    assert "unknown consortium" not in shown
    assert exit_code_of(app, ["verify", str(tmp_path / "absent")]) == 2
    assert "There is no" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--fingerprint", "zz"), ("--html", "/no/such/folder/report.html")])
def test_what_is_mistyped_is_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    (tmp_path / "letter").write_text("Dear operator")
    assert exit_code_of(app, ["verify", str(tmp_path / "letter"), *words]) == 2
    said = capsys.readouterr()
    assert words[0] in said.err
    assert said.out == ""
