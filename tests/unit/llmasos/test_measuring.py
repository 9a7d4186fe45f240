"""`plan measure`: a few real steps of the plan's own model on random tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from common.errors import NotInitialised  # noqa: E402
from common.terminal import exit_code_of  # noqa: E402
from coordinator.commands.dry_run import _measurement  # noqa: E402
from llmasos.cli import app  # noqa: E402
from llmasos.measuring import measure_plan  # noqa: E402
from llmasos.preparation import prepare  # noqa: E402

pytestmark = pytest.mark.torch

PLAN = """\
apiVersion: llmasos/v1
name: tiny
model: {type: gpt2, n_layer: 1, n_head: 2, n_embd: 16, n_positions: 16}
local: {steps: 20, batch_size: 2, sequence_length: 16}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "plan.yaml").write_text(PLAN)
    return prepare(folder / "plan.yaml", folder / "prepared").folder


def test_time_and_memory_of_some_steps_are_measured(prepared: Path) -> None:
    threads = torch.get_num_threads()
    measured = measure_plan(prepared, steps=2, threads=1)
    torch.set_num_threads(threads)
    assert (measured.steps, measured.threads, measured.device[:4]) == (2, 1, "cpu:")
    assert measured.seconds_per_step > 0
    assert measured.seconds_per_round == pytest.approx(20 * measured.seconds_per_step)
    assert measured.tokens_per_second == pytest.approx(32 / measured.seconds_per_step)
    assert measured.parameters > 257 * 16
    assert 50_000_000 < measured.peak_memory_bytes < 20_000_000_000
    assert measured.peak_device_bytes == 0


def test_nothing_is_left_in_the_prepared_folder(prepared: Path) -> None:
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    measure_plan(prepared, steps=1, threads=1)
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before


def test_the_command_prints_what_a_dry_run_reads(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app, ["plan", "measure", str(prepared), "--steps", "1", "--format", "json"]) == 0
    out = capsys.readouterr().out
    found = _measurement(out)
    assert found.result is not None, found.reason
    assert found.result.seconds_per_round == json.loads(out)["seconds_per_round"]
    assert exit_code_of(app, ["plan", "measure", str(prepared), "--steps", "1"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["device", "a", "a", "memory"]


def test_a_folder_that_was_not_prepared_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"holds no draft\.json"):
        measure_plan(tmp_path, steps=1, threads=1)


def test_no_steps_are_a_usage_error(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app, ["plan", "measure", str(prepared), "--steps", "0"]) == 2
    assert "--steps" in capsys.readouterr().err
