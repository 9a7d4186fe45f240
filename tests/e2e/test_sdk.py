"""`llmasos.simulate` from Python: the translation example's plan, three institutions, real daemons, a model that writes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import llmasos
from common.plan.load import load_plan
from llmasos.models import Transformer

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_a_consortium_translates_and_shows_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    synthetic = importlib.import_module("synthetic")
    folders = synthetic.institutions(tmp_path, "translation", synthetic.translation, count=30)
    plan = load_plan(EXAMPLES / "plans" / "translation.yaml", overrides={"rounds": 2, "local.steps": 3})
    result = llmasos.simulate(plan, folders, out=tmp_path / "out", prompt="drei eins")
    assert result.succeeded, result.report["end_reason"]
    assert result.verified
    assert [row["task"] for row in result.rows] == ["train", "train", "evaluate"]
    perplexities = [row["perplexity"] for row in result.rows]
    assert perplexities[-1] == result.perplexity < perplexities[0]
    measures = {row["institution"]: row for row in result.measures}
    assert set(measures) == {*folders, "pooled"}
    assert measures["pooled"]["perplexity"] == pytest.approx(result.perplexity, rel=1e-3)
    assert all(0 <= row["accuracy"] <= 1 for row in measures.values())
    model = result.model()
    assert model.task == plan.task
    assert isinstance(model, Transformer)
    assert model.section.model_dump(exclude={"dropout"}) == plan.model.model_dump(exclude={"dropout"})
    assert isinstance(model.generate_text("drei eins", max_new_tokens=5), str)
