"""Prompts and references: what is read, what is written after prompts, and lm-eval's tasks from local files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import MissingExtra, OperationError, UnreadableData, UsageError
from llmasos import extras
from llmasos.evaluation.references import Example, WritingOptions, evaluate_references, read_examples, score_texts


def test_examples_have_a_prompt_or_source_and_one_or_several_references(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"prompt": "a", "reference": ["b"]}\n\n{"source": "今天", "reference": "今"}\n')
    assert read_examples(file) == [Example("a", ("b",)), Example("今天", ("今",))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"examples.jsonl:1 is not a line of JSON"),
        ("[1]", r":1 is not a JSON object"),
        ('{"reference": "x"}', r":1 has no text in `prompt` or `source`"),
        ('{"prompt": "a", "source": "b", "reference": "x"}', r"or in both, expected one of them"),
        ('{"prompt": "a", "reference": []}', r":1 has no text and no list of texts in `reference`"),
        ('{"prompt": "a", "reference": "b"}\n{"prompt": "a", "reference": ["b", "c"]}', r"example 2 has 2 references"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(line)
    with pytest.raises(UnreadableData, match=message):
        read_examples(file)


def test_an_empty_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UsageError, match="holds no example"):
        read_examples(tmp_path / "empty.jsonl")


def test_texts_that_are_their_references_score_full_marks() -> None:
    pytest.importorskip("sacrebleu")
    examples = [Example("x", ("the dog bit the man",)), Example("y", ("it rained all day long",))]
    found = score_texts([example.references[0] for example in examples], examples)
    assert (found.bleu.value, found.chrf.value) == pytest.approx((100, 100))
    assert (found.rouge.rouge_l, found.answers.exact_match) == (1, 1)


@pytest.mark.torch
def test_a_model_writes_after_each_prompt_up_to_the_number_of_tokens(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sacrebleu")
    from tests.unit.llmasos.test_generation import export

    model, heard = export(tmp_path / "model"), []
    found = evaluate_references(
        model, [Example("ab", ("ab",)), Example("", ("c",))], WritingOptions(max_new_tokens=5), on_text=heard.append
    )
    assert heard == [1, 2]
    assert all(len(text.encode(errors="replace")) <= 15 for text in found.texts)
    assert 0 <= found.bleu.value <= 100


@pytest.mark.torch
def test_without_sacrebleu_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    present = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda package: None if package == "sacrebleu" else present(package))
    with pytest.raises(MissingExtra, match="To compare with references, sacrebleu must be installed"):
        evaluate_references(tmp_path, [Example("a", ("b",))])


TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files: {test: choices.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.mark.torch
def test_lm_eval_tasks_run_from_local_files_and_leave_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("lm_eval")
    import datasets

    from llmasos.evaluation.harness import run_tasks
    from tests.unit.llmasos.test_generation import export

    model, folder, cache = export(tmp_path / "model"), tmp_path / "tasks", tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    folder.mkdir()
    with pytest.raises(UsageError, match="holds no lm-eval task"):
        run_tasks(model, folder)
    (folder / "tiny.yaml").write_text(TASK)
    rows = [{"question": "a", "choices": ["b", "c"], "answer": number % 2} for number in range(4)]
    (folder / "choices.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = run_tasks(model, folder)
    assert found["tiny_choice"].numbers["acc,none"] == 0.5  # the same choice is right every other time
    assert found["tiny_choice"].examples == 4
    assert not cache.exists()
    (folder / "tiny.yaml").write_text(TASK.replace("choices.jsonl", "absent.jsonl"))
    with pytest.raises(OperationError, match=r"lm-eval cannot run the tasks in .*absent"):
        run_tasks(model, folder)


@pytest.mark.torch
def test_without_lm_eval_it_says_which_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from llmasos.evaluation.harness import run_tasks

    present = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda package: None if package == "lm_eval" else present(package))
    with pytest.raises(MissingExtra) as caught:
        run_tasks(tmp_path, tmp_path)
    assert caught.value.fix == "Install them: pip install 'llmasos[lm-eval]'."
