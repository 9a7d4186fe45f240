"""The smaller benchmarks of the data plane run at tiny sizes, with real processes, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.reduce.registry import RULES
from tests.support.benchmark_modules import BENCHMARKS, growth

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(script: str, folder: Path, *options: str) -> Any:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", "-", "--folder", str(folder), *options]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=400)
    assert found.returncode == 0, found.stderr
    assert [path for path in folder.iterdir() if path.suffix != ".svg"] == [], "nothing is left behind"
    return json.loads(found.stdout)


def test_empty_rounds_are_cosigned_and_held_against_fsync(tmp_path: Path) -> None:
    found = run("empty_rounds.py", tmp_path, "--participants", "2", "--rounds", "3")
    assert found["cosigners"] >= 2
    assert len(found["each_ms"]) == 3
    assert found["round_ms"] >= min(found["each_ms"]) > 0
    assert found["allowed_ms"] == pytest.approx(100 + 10 * found["fsync_ms"], abs=0.1)
    assert found["met"]["round"] == (found["round_ms"] < found["allowed_ms"])
    assert found["processor_ms"]["agents"] > 0


def test_folding_tells_each_step_apart_for_each_codec(tmp_path: Path) -> None:
    found = run("folding.py", tmp_path, "--mb", "4", "--deltas", "2", "--plot", str(tmp_path / "folding.svg"))
    assert list(found["codecs"])[:4] == ["float32", "bfloat16", "int8", "int4"]
    for each in found["codecs"].values():
        assert each["base"]["float32_gb_s"] >= each["base"]["gb_s"] >= 0, (
            "0: lost in noise, as processor time of 4 MB may be"
        )
        assert each["alone"] is None or each["alone"]["gb_s"] > 0, "None: lost in noise"
        assert each["rehash"]["ratio"] == pytest.approx(each["rehash"]["gb_s"] / found["memcpy_gb_s"], abs=0.01)
        assert set(each["processor_seconds_per_gb"]) == {"alone", "base", "rehash", "output"}
    assert found["codecs"]["int8"]["share"] == pytest.approx(0.258, abs=0.001)
    assert "<svg " in (tmp_path / "folding.svg").read_text()


def test_rules_are_held_against_the_mean(tmp_path: Path) -> None:
    found = run("rules.py", tmp_path, "--deltas", "4,7", "--plot", str(tmp_path / "rules.svg"))
    assert set(found["rules"]) == {"4", "7"}
    assert set(found["rules"]["7"]) == set(RULES)
    for each in found["rules"].values():
        assert each["weighted-mean"]["speed"] == 1
        assert each["weighted-mean"]["passes"] == 3
        assert each["bulyan"]["passes"] > each["krum"]["passes"] > 3
        assert all(row["seconds"] > 0 for row in each.values())
    assert "<svg " in (tmp_path / "rules.svg").read_text()


def test_attacks_ruin_the_mean_and_not_the_rules_that_withstand_them(tmp_path: Path) -> None:
    found = run("robustness.py", tmp_path, "--rounds", "8", "--seeds", "7", "--plot", str(tmp_path / "robust.svg"))
    rules = found["rules"]
    assert set(rules) == set(RULES)
    undisturbed = rules["weighted-mean"]["nobody"]["accuracy"]
    for attack in ("sign flip", "scaling", "noise"):
        assert rules["weighted-mean"][attack]["accuracy"] < 0.8 * undisturbed
        assert not rules["weighted-mean"][attack]["within"]
        for rule in ("median", "trimmed-mean", "geometric-median", "krum", "multi-krum", "bulyan"):
            assert rules[rule][attack]["within"]
            assert rules[rule][attack]["accuracy"] > 0.85 * undisturbed, (rule, attack)
    assert rules["weighted-mean"]["colluding third"]["accuracy"] < 0.2
    assert not rules["bulyan"]["colluding third"]["within"]
    assert "<svg " in (tmp_path / "robust.svg").read_text()


def test_simulated_senders_take_part_as_institutions_do(tmp_path: Path) -> None:
    three = growth.Settings(bytes=5_000_000, participants=3, rounds=2)
    point = growth.measure(three, growth.simulated_senders(2), tmp_path)
    assert point["gb_moved"] == 0.03
    assert 0 < min(point["each"]) <= point["round_seconds"]
    assert 0 < point["coordinator_processor_seconds_per_gb"] < point["all_processor_seconds_per_gb"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
