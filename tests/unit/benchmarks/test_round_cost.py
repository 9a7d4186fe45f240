"""benchmarks/round_cost.py runs a real federation at a tiny size and says what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "round_cost.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--quick", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=400)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_size_as_json_and_as_a_plot(tmp_path: Path) -> None:
    plot = tmp_path / "cost.svg"
    found = run("--mb", "1", "--participants", "1", "--folder", str(tmp_path), "--plot", str(plot), "--json", "-")
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    row = result["rows"][0]
    assert row.items() <= result.items(), "the only row's fields stand at the top, too"
    assert (row["mb"], row["participants"], row["rounds"]) == (1, 1, 2)
    assert row["round_seconds"] > 0
    assert row["bare_grpc_seconds"] > 0
    assert row["ratio"] == pytest.approx(row["round_seconds"] / row["bare_grpc_seconds"], rel=0.05)
    assert 10 < row["agent_peak_mb"] < 300
    assert 10 < row["coordinator_peak_mb"] < 300
    assert row["gb_moved"] == 0.002, "the model down and the delta up"
    assert row["met"]["all_bytes_moved"]
    sides = row["processor"]
    assert 0 < sides["coordinator"]["seconds"] < sides["all"]["seconds"]
    assert sides["agents"]["seconds"] > 0
    assert 0 < sides["bare_server"]["seconds"] < sides["bare_all"]["seconds"]
    assert row["where"]["measured"] == pytest.approx(sides["all"]["seconds"], abs=0.002)
    assert all(limit > 0 for limit in result["limits"].values())
    assert plot.read_text().startswith("<svg ")
    assert "bare gRPC, 1" in plot.read_text()
    assert list(tmp_path.iterdir()) == [plot], "nothing else is left behind"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--mb", "100,many"), "expected positive whole numbers with commas between, got '100,many'"),
        (("--rounds", "1"), "--rounds: expected 2 or more, got 1"),
        (("--plot", "cost.png"), "cost.png does not end in .svg"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_starts(options: tuple[str, ...], said: str) -> None:
    found = run(*options)
    assert found.returncode == 2
    assert said in found.stderr


def test_a_disk_without_room_is_told_before_anything_starts(tmp_path: Path) -> None:
    found = run("--mb", "900000000", "--folder", str(tmp_path))
    assert found.returncode == 1
    assert "GB free; 2 rounds of 4 participants with 9e+08 MB may need" in found.stderr
