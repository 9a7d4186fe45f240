"""benchmarks/ledger.py runs at a small size, checks its own proofs, and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "ledger.py"
SMALL = ["--entries", "300", "--batch", "100", "--singles", "5", "--leaves", "2000", "--proofs", "20", "--seed", "7"]


def run(folder: Path, *options: str) -> str:
    command = [sys.executable, str(SCRIPT), *SMALL, "--folder", str(folder), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_result_as_json(tmp_path: Path) -> None:
    found = json.loads(run(tmp_path, "--json", "-"))
    assert found["group_commits"]["entries"] == 300
    assert found["single_commits"]["entries"] == 5
    assert found["group_commits"]["ratio"] > 0
    assert found["long"]["leaves"] == 2000
    assert set(found["long"]["proofs"]) == {
        "inclusion, warm",
        "inclusion, cold",
        "consistency, warm",
        "consistency, cold",
    }
    assert all(0 < each["median_ms"] <= each["p99_ms"] for each in found["long"]["proofs"].values())
    assert set(found["met"]) == {"ratio", "inclusion", "memory"}
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_result_as_a_table_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    lines = run(tmp_path, "--json", str(file)).splitlines()
    assert lines[0].split() == ["plain/s", "ours/s", "ratio"]
    assert lines[1].startswith("group commits, 100 a commit")
    assert any(line.startswith("inclusion, cold") for line in lines)
    assert json.loads(file.read_text())["group_commits"]["batch"] == 100
