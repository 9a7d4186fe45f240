"""Baselines: configuration, packing on the cores, and what their processes print."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from common.errors import OperationError
from llmasos.simulation import baselines
from llmasos.simulation.baselines import BaselineSet, Measured, configuration, parse_line, run_baselines
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.deployment import InstitutionFolder
from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Processes
from llmasos.simulation.progress import LineProgress

FAKE = """
import json, sys
config = json.load(open(sys.argv[1]))
print(json.dumps({"event": "progress", "steps_done": 1, "steps_total": config["steps"], "tokens_done": 5, "loss_fixed": 65536}))
if len(config["train"]) == FAIL:
    sys.exit("the loss is NaN")
sums = {one["name"]: {"loss_sum_fixed": 65536 * len(config["train"]), "num_tokens": 1} for one in config["evaluate"]}
print(json.dumps({"event": "result", "evaluations": sums, "train_loss": 1.0, "seconds": 0.1}))
"""


def a_set(tmp_path: Path, cores: int = 2) -> BaselineSet:
    folders = tuple(InstitutionFolder(name, tmp_path / name) for name in ("north", "south"))
    return BaselineSet(folders, steps=4, batch_multiplier=2, seed=7, cores=cores)


def fake_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fail: int = 0) -> None:
    (tmp_path / "fake_baseline.py").write_text(FAKE.replace("FAIL", str(fail)))
    monkeypatch.setattr(baselines, "COMMAND", (sys.executable, str(tmp_path / "fake_baseline.py")))


def test_all_baselines_are_trained_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_module(tmp_path, monkeypatch)
    out = io.StringIO()
    with Processes() as processes:
        found = run_baselines(a_set(tmp_path), Layout(tmp_path), processes, LineProgress(out, lambda: 0.0))
    assert set(found.alone) == {"north", "south"}
    assert found.alone["north"].pooled == pytest.approx(2.71828, abs=1e-4)
    assert found.pooled_data.institutions["south"] == pytest.approx(7.38906, abs=1e-4)
    assert (found.steps, found.batch_multiplier) == (4, 2)
    assert "pooled data: 4 steps done" in out.getvalue()


def test_a_baseline_that_fails_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_module(tmp_path, monkeypatch, fail=2)
    with Processes() as processes, pytest.raises(OperationError, match="the loss is NaN") as caught:
        run_baselines(a_set(tmp_path), Layout(tmp_path), processes, LineProgress(io.StringIO(), lambda: 0.0))
    assert caught.value.message.startswith("pooled data ended with exit code 1")


def test_the_configuration_is_what_the_baselines_process_reads(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from llmasos.training.baseline import Config

    work = a_set(tmp_path)
    told = [configuration(job, work, Layout(tmp_path)) for job in work.jobs()]
    configs = [Config.model_validate_json(json.dumps(one)) for one in told]
    assert [len(config.train) for config in configs] == [2, 1, 1]
    assert [config.batch_multiplier for config in configs] == [2, 1, 1]
    assert all(len(config.evaluate) == 2 and config.steps == 4 for config in configs)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 2), (9, 4)])
def test_half_of_the_cores_train_on_pooled_data(tmp_path: Path, cores: int, threads: int) -> None:
    jobs = a_set(tmp_path, cores).jobs()
    assert [job.name for job in jobs] == ["pooled data", "alone: north", "alone: south"]
    assert [job.threads for job in jobs] == [threads, 1, 1]


def test_a_line_that_is_neither_progress_nor_result_is_quoted() -> None:
    with pytest.raises(OperationError, match=r"The baseline 'pooled data' printed a line .*warning: slow"):
        parse_line("pooled data", b"warning: slow")


def test_a_result_becomes_scores() -> None:
    line = b'{"event": "result", "evaluations": {"north": {"loss_sum_fixed": 65536, "num_tokens": 1}}, "seconds": 1}'
    found = parse_line("x", line)
    assert isinstance(found, Measured)
    assert found.scores().pooled == pytest.approx(2.71828, abs=1e-4)


def test_a_containers_quota_bounds_the_cores(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    assert usable_cores(quota_file=quota) == 1
    quota.write_text("max 100000\n")
    assert usable_cores(quota_file=quota) == usable_cores(quota_file=tmp_path / "absent")
