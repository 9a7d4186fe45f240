"""benchmarks/scale.py: what a row says, the first round left out, and the options; no engine is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from tests.support.benchmark_modules import scale


def bench(tmp_path: Path) -> scale.Bench:
    made = scale.Bench.__new__(scale.Bench)
    made.folder, made.cores, made.parameters = tmp_path, 2, 1_000
    return made


def test_the_first_round_does_not_count_and_the_share_is_of_all_cores(tmp_path: Path) -> None:
    timed = [(100.0, 1.0), (4.0, 6.0), (6.0, 9.0), (5.0, 7.5)]
    row = bench(tmp_path)._measured("ours, flower engine", 100, timed, 512.0, 130.0).as_json()
    assert row["seconds_a_round"] == 5.0
    assert row["training_share"] == 0.75
    assert (row["institutions"], row["memory_mb"], row["total_seconds"]) == (100, 512.0, 130.0)


def test_the_table_has_a_line_for_each_engine_and_size_and_says_what_is_not_measured(tmp_path: Path) -> None:
    rows = [
        scale.Measured("ours, processes", 10, (1.5,), None, 900.0, 60.0).as_json(),
        scale.Measured("flower fedavg", 1000, (20.0, 30.0), 0.91, 1500.0, 99.0).as_json(),
    ]
    found = {"parameters": 1_000_000, "cores": 2, "rows": rows, "machine": {"load": [3.5, 1, 1]}}
    text = scale.table(found)
    assert "ours, processes     1.50         -" in text
    assert "25.00     91.0%" in text
    assert text.endswith("1,000,000 parameters, 2 cores, load 3.5; pfl: not measured")
    assert "<svg" in scale.plot(found)


def test_few_institutions_and_one_round_are_refused() -> None:
    assert scale.parse_arguments(["--quick"]).institutions == [4, 20]
    assert scale.parse_arguments([]).institutions == [10, 100, 1000]
    for wrong in (["--institutions", "2"], ["--rounds", "1"]):
        with pytest.raises(SystemExit):
            scale.parse_arguments(wrong)


def test_a_command_that_fails_is_told_with_the_end_of_its_log() -> None:
    from common.errors import OperationError

    program = "import sys; print('the reason', file=sys.stderr); sys.exit(3)"
    with pytest.raises(OperationError, match="ended with 3: the reason"):
        scale.watched([sys.executable, "-P", "-c", program])


def test_memory_of_a_process_that_ended_is_none() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert scale.proportional_bytes(ended.pid) == 0
