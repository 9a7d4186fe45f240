"""Mixtures: whose rows go where, how often each is drawn, and which tasks cannot be mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.errors import TooLittleData, UnreadableData
from llmasos.datasets.source import Source
from llmasos.tasks.mixture import Mixed
from llmasos.training.corpus import prepare_corpus
from llmasos.training.device import Machine
from tests.support.records import a_conversation, a_translation, make_records, write_records
from tests.support.tasks import MODELS, a_task_plan, tokenizer_for

pytestmark = pytest.mark.torch

Make = Callable[..., Any]
GERMAN = {"type": "seq2seq", "prefix": "g "}
SUMMARY = {"type": "seq2seq", "source": "article", "target": "summary", "prefix": "s "}


def mixed(*weighted: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "mixture", "tasks": [{"weight": weight, "task": task} for weight, task in weighted]}


TASK = mixed((1, GERMAN), (3, SUMMARY))


def both(root: Path) -> Path:
    folder = make_records(root, a_translation, count=1)["clinic"]
    write_records(folder / "news.jsonl", [{"article": f"news {n}", "summary": str(n)} for n in range(40)])
    return folder


def test_each_record_goes_to_the_task_whose_fields_it_has_and_rows_come_by_weight(
    tmp_path: Path, learner: Make
) -> None:
    one = learner(both(tmp_path / "data"), TASK, model=MODELS["seq2seq"], local={"batch_size": 64})
    assert [part.documents for part in one.corpus.facts.parts] == [40, 40]
    first = [row for step in range(8) for row in one.draw(step)["input_ids"][:, 0]]
    assert set(first) == {ord("g"), ord("s")}
    assert 0.68 < first.count(ord("s")) / len(first) < 0.82
    measured = [int(row["input_ids"][0, 0]) for row in one.corpus.held_out_rows()]
    assert set(measured) == {ord("g"), ord("s")}


def test_an_institution_without_data_for_a_task_trains_on_the_others(tmp_path: Path, learner: Make) -> None:
    folder = make_records(tmp_path / "data", a_translation, count=1)["clinic"]
    one = learner(folder, TASK, model=MODELS["seq2seq"])
    assert isinstance(one.corpus.train, Mixed)
    assert len(one.corpus.train.parts) == 1
    assert set(one.draw(0)["input_ids"][:, 0]) == {ord("g")}


def test_data_sets_are_for_the_tasks_that_they_name_though_their_fields_are_others_too(
    tmp_path: Path, machine: Machine
) -> None:
    french = {"type": "seq2seq", "prefix": "f "}
    named = [{"weight": 1, "task": GERMAN, "name": "german"}, {"weight": 1, "task": french, "name": "french"}]
    plan = a_task_plan({"type": "mixture", "tasks": named}, model=MODELS["seq2seq"], local={"batch_size": 32})
    folders = make_records(tmp_path / "data", a_translation, count=2)
    tokenizer = tokenizer_for(plan, tmp_path / "tokenizer.json")
    sources = [Source(folders["clinic"], tasks=("german",)), Source(folders["bank"], tasks=("french", "summary"))]
    with prepare_corpus(sources, tokenizer, tmp_path / "tokens", plan) as corpus:
        assert [part.documents for part in corpus.facts.parts] == [40, 40]
        assert set(corpus.batch(seed=1, step=0)["input_ids"][:, 0]) == {ord("g"), ord("f")}
    with prepare_corpus([Source(one.folder) for one in sources], tokenizer, tmp_path / "tokens", plan) as corpus:
        assert [part.documents for part in corpus.facts.parts] == [80, 0], "by fields alone, all are the first task's"


def test_a_data_set_for_another_task_than_its_fields_is_told(tmp_path: Path, machine: Machine) -> None:
    plan = a_task_plan(TASK, model=MODELS["seq2seq"])
    tasks = [
        part.model_copy(update={"name": name}) for part, name in zip(plan.task.tasks, ("pairs", "news"), strict=True)
    ]
    plan = plan.model_copy(update={"task": plan.task.model_copy(update={"tasks": tuple(tasks)})})
    folder = make_records(tmp_path / "data", a_translation, count=1)["clinic"]
    tokenizer = tokenizer_for(plan, tmp_path / "tokenizer.json")
    with pytest.raises(UnreadableData) as caught:
        prepare_corpus([Source(folder, tasks=("news",))], tokenizer, tmp_path / "tokens", plan)
    assert caught.value.message.endswith(
        "records.jsonl:1 has no field 'article', 'summary'; task mixture reads 'article', 'summary'."
    )
    assert "llmasos-participant data add --task" in caught.value.fix


def test_one_long_text_is_enough_for_a_mixtures_task_on_text(tmp_path: Path, learner: Make) -> None:
    folder = make_records(tmp_path / "data", a_conversation, count=1)["clinic"]
    (folder / "book.txt").write_text("a line of a book\n" * 40)
    one = learner(folder, mixed((1, {"type": "causal-lm"}), (1, {"type": "instruction"})))
    assert [part.documents for part in one.corpus.facts.parts] == [2, 40], "a text alone is cut"


def test_what_one_task_lacks_is_told_with_its_name(tmp_path: Path, learner: Make) -> None:
    folder = make_records(tmp_path / "data", a_translation, count=1)["clinic"]
    write_records(folder / "news.jsonl", [{"article": "news", "summary": "1"}])
    with pytest.raises(TooLittleData, match=r"^For task seq2seq .*clinic holds a single unit \(1 documents\)"):
        learner(folder, TASK, model=MODELS["seq2seq"])


def test_a_record_that_fits_no_task_is_told(tmp_path: Path, learner: Make) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"source": "x", "summary": "y"}))
    with pytest.raises(UnreadableData) as caught:
        learner(tmp_path / "a.jsonl", TASK, model=MODELS["seq2seq"])
    assert caught.value.message.endswith(
        "a.jsonl:1 has no field 'target'; task mixture reads 'source', 'target', or 'article', 'summary'."
    )


@pytest.mark.parametrize("content", [b"[", b"[40]", b"{}"])
def test_damaged_parts_are_made_again(tmp_path: Path, learner: Make, content: bytes) -> None:
    folder = both(tmp_path / "data")
    before = learner(folder, TASK, model=MODELS["seq2seq"]).corpus
    before.train.path.write_bytes(content)
    assert learner(folder, TASK, model=MODELS["seq2seq"]).corpus.facts == before.facts


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (mixed((1, GERMAN), (1, {"type": "causal-lm"})), "must share a head of the model, got causal-lm, seq2seq-lm"),
        (mixed((1, {"type": "causal-lm"}), (1, {"type": "preference"})), "preference cannot be part of a mixture"),
        (
            mixed((1, {"type": "causal-lm"}), (1, {"type": "causal-lm"})),
            "one task on running text, got causal-lm, causal-lm",
        ),
        (mixed((0, GERMAN), (1, SUMMARY)), "greater than 0"),
        (
            {"type": "mixture", "tasks": [{"weight": 1, "task": one, "name": "a"} for one in (GERMAN, SUMMARY)]},
            "the name 'a' of a task in a mixture is another's",
        ),
        (
            {
                "type": "mixture",
                "tasks": [{"weight": 1, "task": GERMAN, "name": "seq2seq"}, {"weight": 1, "task": SUMMARY}],
            },
            "the name 'seq2seq' of a task in a mixture is another's, or a type of task",
        ),
        (mixed((1, GERMAN)), "at least 2 items"),
    ],
)
def test_what_cannot_be_mixed_is_told(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        a_task_plan(task, model=MODELS["seq2seq"])


def test_a_mixture_is_explained_in_one_line() -> None:
    from common.plan.explain import explain

    plan = a_task_plan(TASK, model=MODELS["seq2seq"])
    (row,) = [row for row in explain(plan).rows if (row.section, row.field) == ("task", "tasks")]
    assert row.value.startswith(
        "[{weight: 1, task: {type: seq2seq, source: source, target: target, prefix: g }, name: null}, {weight: 3"
    )
