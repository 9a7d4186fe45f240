"""Measured rows: what a model that always says the same gets right can be counted by hand, and sums are each row's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import TooLittleData, WorkerFailed  # noqa: E402
from llmasos.evaluation.answers import Answers, Writing, own_measures  # noqa: E402
from llmasos.evaluation.targets import measure_rows  # noqa: E402
from llmasos.tasks.base import tensors_of  # noqa: E402
from llmasos.tasks.registry import objective_of  # noqa: E402
from tests.support.records import LABELS, a_labelled_text, a_question, a_translation, make_records  # noqa: E402
from tests.unit.llmasos.tasks.test_training import CASES  # noqa: E402

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


@pytest.mark.parametrize("name", [*CASES, "causal"])
def test_a_rows_sums_are_those_of_the_row_alone_in_any_batch(name: str, tmp_path: Path, learner: Make) -> None:
    case = CASES.get(name, CASES["masked-lm"])
    one = learner(case.folder(tmp_path / "data"), {"type": "causal-lm"} if name == "causal" else case.task, **case.plan)
    model, rows = one.model().train(False), list(one.corpus.held_out_rows())[:5]
    found = measure_rows(model, one.plan.task, rows, batch_size=3)
    objective = objective_of(one.plan.task)
    with torch.no_grad():
        alone = [objective.nats(model, tensors_of(row, "cpu")) for row in rows]
    assert found.targets == [nats.numel() for nats in alone]
    assert found.nats == pytest.approx([float(nats.sum()) for nats in alone], rel=1e-4)
    again = [measure_rows(model, one.plan.task, [row], batch_size=1) for row in rows]
    assert found.hits == [each.hits[0] for each in again]
    assert found.judged == [each.judged[0] for each in again]
    assert sum(found.judged) > 0
    assert (found.units.accuracy or 0) <= 1


def test_a_model_that_always_says_the_first_label(tmp_path: Path, learner: Make) -> None:
    folder = make_records(tmp_path / "data", a_labelled_text, count=1)["clinic"]
    one = learner(folder, {"type": "sequence-classification", "labels": list(LABELS)})
    rows = all_rows(one.corpus)
    first = Fixed(lambda input_ids, **_: {"logits": torch.tensor([[1.0, 0.0]]).repeat(len(input_ids), 1)})
    share = sum(int(row["labels"][0]) == 0 for row in rows) / len(rows)
    found = measure_rows(first, one.plan.task, rows, batch_size=8)
    assert found.units.accuracy == pytest.approx(share)
    said, wanted = ([LABELS[place] for place in side] for side in (found.said, found.wanted))
    values, _ = own_measures(one.plan.task, Answers(said, wanted), Writing(), seed=0)
    assert values == pytest.approx({"macro_f1": share / (1 + share), "micro_f1": share})


def test_tokens_that_are_likeliest_where_they_are_wanted(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_translation, count=1)["clinic"], {"type": "seq2seq"})
    rows, end = all_rows(one.corpus), 256

    def always_end(input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": torch.nn.functional.one_hot(torch.full_like(input_ids, end), 258).float()}

    found = measure_rows(Fixed(always_end), one.plan.task, rows, batch_size=8)
    assert found.hits == [1] * len(rows)
    assert found.judged == [int((row["labels"] >= 0).sum()) for row in rows]


def test_a_model_that_never_finds_an_answer_is_right_where_there_is_none(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_question, count=1)["clinic"], {"type": "question-answering"})
    rows = all_rows(one.corpus)

    def at_cls(input_ids: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(torch.zeros_like(input_ids[:, 0]), input_ids.shape[1]).float()
        return {"start_logits": logits, "end_logits": logits}

    found = measure_rows(Fixed(at_cls), one.plan.task, rows, batch_size=8)
    assert found.hits == [2 * int(row["start_positions"][0] == 0) for row in rows]
    assert 0 < sum(found.hits) < sum(found.judged) == 2 * len(rows)


def test_without_rows_or_finite_losses_there_is_nothing_to_say(tmp_path: Path, learner: Make) -> None:
    one = learner(make_records(tmp_path / "data", a_translation, count=1)["clinic"], {"type": "seq2seq"})
    with pytest.raises(TooLittleData, match="None of the data holds anything to measure for task seq2seq"):
        measure_rows(one.model(), one.plan.task, [], batch_size=8)
    broken = Fixed(lambda input_ids, **_: {"logits": torch.full((*input_ids.shape, 258), torch.nan)})
    with pytest.raises(WorkerFailed, match="targets is nan, expected a finite number"):
        measure_rows(broken, one.plan.task, all_rows(one.corpus), batch_size=8)
