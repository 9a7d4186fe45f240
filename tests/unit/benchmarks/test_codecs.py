"""benchmarks/codecs.py runs at a small size and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "codecs.py"
SMALL = ["--elements", "200000", "--repeats", "2", "--deltas", "2"]
STEPS = {"encode", "feedback", "decode", "check", "inspect", "fold"}


def run(*options: str) -> str:
    command = [sys.executable, str(SCRIPT), *SMALL, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_result_as_json() -> None:
    found = json.loads(run("--json", "-"))
    assert found["unit"] == "GB of float32 a second of processor time"
    assert list(found["codecs"]) == ["float32", "bfloat16", "int8", "int4", "topk"]
    assert found["copy"]["median"] > 0
    for each in found["codecs"].values():
        assert each.keys() == {"share", *STEPS}
        assert all(0 < each[step]["median"] <= each[step]["fastest"] for step in STEPS)
    encoders = {f"{name} encode" for name in found["codecs"] if name != "float32"}
    assert set(found["met"]) == {*encoders, "int8 decode", "int4 decode"}


def test_the_result_as_a_table_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    lines = run("--json", str(file)).splitlines()
    assert lines[0].startswith("GB of float32 a second of processor time, median (fastest); a copy: ")
    assert lines[2].split() == ["bytes", "encode", "feedback", "decode", "check", "inspect", "fold"]
    assert [line.split()[:2] for line in lines[3:8]] == [
        ["float32", "100.0%"],
        ["bfloat16", "50.0%"],
        ["int8", "25.8%"],
        ["int4", "13.3%"],
        ["topk", "1.4%"],
    ]
    assert json.loads(file.read_text())["elements"] == 200_000
