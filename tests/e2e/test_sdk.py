"""The consortium of docs/sdk.md as written: a translation plan, three institutions, real daemons, a model that writes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from common.plan.load import load_plan, plan_yaml
from llmasos.models import Transformer
from llmasos.simulation.result import SimulationResult
from tests.unit.test_sdk_page import CONSORTIUM, PAGE, blocks

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_a_consortium_translates_and_shows_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    synthetic = importlib.import_module("synthetic")
    folders = synthetic.institutions(tmp_path, "translation", synthetic.translation, count=30)
    for name, folder in zip("abc", folders.values(), strict=True):
        folder.rename(tmp_path / name)
    plan = load_plan(EXAMPLES / "plans" / "translation.yaml", overrides={"rounds": 2, "local.steps": 3})
    Path("plan.yaml").write_text(plan_yaml(plan))
    names: dict[str, Any] = {"llmasos": importlib.import_module("llmasos")}
    (block,) = blocks(PAGE.read_text(encoding="utf-8").partition(CONSORTIUM)[2])
    exec(compile(block, str(PAGE), "exec"), names)
    result = names["result"]
    assert isinstance(result, SimulationResult)
    assert result.succeeded, result.report["end_reason"]
    assert result.verified
    assert [row["task"] for row in result.rows] == ["train", "train", "evaluate"]
    measures = {row["institution"]: row for row in result.measures}
    assert set(measures) == {"a", "b", "c", "pooled"}
    assert measures["pooled"]["perplexity"] == pytest.approx(result.perplexity, rel=1e-3)
    assert all(0 <= row["accuracy"] <= 1 for row in measures.values())
    assert result.rounds["perplexity"].tolist() == [row["perplexity"] for row in result.rows]
    assert result.rows[-1]["perplexity"] == result.perplexity < result.rows[0]["perplexity"]
    assert Path("rounds.svg").read_text().startswith("<svg")
    model = result.model()
    assert model.task == plan.task
    assert isinstance(model, Transformer)
    assert model.section.model_dump(exclude={"dropout"}) == plan.model.model_dump(exclude={"dropout"})
    out, err = capsys.readouterr()
    assert isinstance(model.generate_text("drei eins", max_new_tokens=5), str)
    assert "perplexity before" not in out + err  # the command's table and progress: nobody watches here
