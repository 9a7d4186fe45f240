"""benchmarks/training.py: how ratios come about, what is left out without `accelerate`, and one small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.support.benchmark_modules import training  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_ratio_is_the_median_over_turns_of_their_time_by_ours() -> None:
    seconds = {
        training.HAND: [(1.0, 2.0), (2.0, 2.0), (9.0, 2.0)],
        training.OURS: [(2.0, 2.0), (2.0, 4.0), (3.0, 2.0)],
    }
    hand, ours = training.compared(seconds, tokens_a_step=100)
    assert (hand["ratio"], hand["ratio_processor"]) == (1.0, 1.0)
    assert (ours["ratio"], ours["tokens_per_second"]) == (1.0, 50.0)
    assert hand["tokens_per_second"] == 50.0


def test_the_first_step_of_a_turn_does_not_count() -> None:
    turn = training.Turn(torch.device("cpu"), elapsed=[50.0, 52.0, 54.0], processor=[50.0, 51.0, 52.0])
    assert turn.seconds_a_step == (2.0, 1.0)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(SystemExit):
        training.parse_arguments(["--steps", "1"])


def test_a_small_run_measures_all_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    assert training.main(["--quick", "--no-start-up", "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    assert "Trainer: not measured, since `accelerate` is not installed" in text
    found = json.loads((tmp_path / "out.json").read_bytes())
    assert [row["name"] for row in found["rows"]] == [training.HAND, training.OURS]
    assert 0 < found["loading"] < 0.5
    assert torch.are_deterministic_algorithms_enabled()
