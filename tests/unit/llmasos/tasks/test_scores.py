"""Scores: what a model that always says the same gets right can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from llmasos.tasks.scores import scores  # noqa: E402
from llmasos.tokenizers import load  # noqa: E402
from tests.support.records import LABELS, a_labelled_text, a_question, a_translation, make_records  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Any]


class Fixed(torch.nn.Module):
    """Gives these outputs of a batch, whatever its weights."""

    def __init__(self, outputs: Callable[..., dict[str, torch.Tensor]]) -> None:
        super().__init__()
        self.weight, self.config, self._outputs = torch.nn.Parameter(torch.zeros(1)), SimpleNamespace(), outputs

    def forward(self, **inputs: torch.Tensor) -> Any:
        return SimpleNamespace(**self._outputs(**inputs))


def all_rows(corpus: Any) -> list[Any]:
    return [corpus.train._row(index, None) for index in range(corpus.train.file.count)]


def test_a_model_that_always_says_the_first_label(tmp_path: Path, learner: Make) -> None:
    folder = make_records(tmp_path / "data", a_labelled_text, count=1)["clinic"]
    one = learner(folder, {"type": "sequence-classification", "labels": list(LABELS)})
    rows = all_rows(one.corpus)
    first = Fixed(lambda input_ids, **_: {"logits": torch.tensor([[1.0, 0.0]]).repeat(len(input_ids), 1)})
    share = sum(int(row["labels"][0]) == 0 for row in rows) / len(rows)
    assert scores(one.plan.task, first, rows, load(one.tokenizer)) == pytest.approx(
        {"accuracy": share, "macro_f1": share / (1 + share), "micro_f1": share}
    )


def test_tokens_that_are_likeliest_where_they_are_wanted(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_translation, count=1)["clinic"], {"type": "seq2seq"})
    rows, end = all_rows(one.corpus), 256

    def always_end(input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.nn.functional.one_hot(torch.full_like(input_ids, end), 258).float()}

    wanted = sum(int((row["labels"] >= 0).sum()) for row in rows)
    found = scores(one.plan.task, Fixed(always_end), rows, load(one.tokenizer))
    assert found == pytest.approx({"accuracy": len(rows) / wanted})


def test_a_model_that_never_finds_an_answer_is_right_where_there_is_none(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_question, count=1)["clinic"], {"type": "question-answering"})
    rows = all_rows(one.corpus)

    def at_cls(input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(torch.zeros_like(input_ids[:, 0]), input_ids.shape[1]).float()
        return {"start_logits": logits, "end_logits": logits}

    none = sum(int(row["start_positions"][0]) == 0 for row in rows) / len(rows)
    assert 0 < none < 1
    assert scores(one.plan.task, Fixed(at_cls), rows, load(one.tokenizer)) == {"exact_match": none, "f1": none}


def test_without_rows_there_is_nothing_to_score(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_translation, count=1)["clinic"], {"type": "seq2seq"})
    with pytest.raises(UsageError):
        scores(one.plan.task, one.model(), [], load(one.tokenizer))
