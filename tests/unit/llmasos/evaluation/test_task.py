"""`llmasos evaluate --plan`: a model folder on the records of a plan's task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from llmasos.cli import app  # noqa: E402
from llmasos.datasets import load_dataset  # noqa: E402
from llmasos.evaluation.task import evaluate_task  # noqa: E402
from llmasos.models import BERT  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402
from tests.support.plans import a_plan  # noqa: E402
from tests.support.researching import write_labelled  # noqa: E402

pytestmark = pytest.mark.torch

TASK = {"type": "sequence-classification", "labels": ["german", "english"]}
MODEL = {
    "type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def test_a_model_folder_is_measured_as_the_sdk_measures_it(tmp_path: Path) -> None:
    records = write_labelled(tmp_path / "records")
    data = load_dataset(records, task=TASK, validation=0, test=0)
    model = BERT(16, 1, 2, max_position_embeddings=32, dropout=0.0)
    model.fit(data.train, Adam(lr=1e-2), steps=5)
    folder = model.save(tmp_path / "model")
    plan = a_plan(task=TASK, model=MODEL, local={"sequence_length": 32})
    found, expected = evaluate_task(folder, records, plan), model.evaluate(data.train, sequence_length=32)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert (found.scores, found.tokens, found.split) == (expected.scores, 60, "all")
    (tmp_path / "plan.yaml").write_text(json.dumps(plan.model_dump(mode="json", exclude_none=True)))
    words = ["evaluate", str(folder), str(records), "--plan", str(tmp_path / "plan.yaml"), "--threads", "1"]
    shown = CliRunner().invoke(app, [*words, "--format", "json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    assert (told["task"], told["tokens"], told["macro_f1"]) == (TASK["type"], 60, found.scores["macro_f1"])
    assert "macro_f1" in CliRunner().invoke(app, words).stdout
    refused = CliRunner().invoke(app, [*words, "--max-tokens", "5"])
    assert isinstance(refused.exception, UsageError)
    with pytest.raises(UsageError, match="ends in sequence-classification, task masked-lm needs masked-lm"):
        evaluate_task(folder, records, a_plan(task={"type": "masked-lm"}, model=MODEL, local={"sequence_length": 32}))
