"""`llmasos evaluate` on folders of every kind: what each is measured by, and a sentence where it cannot be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from common.errors import MissingExtra, TooLittleData, UnreadableData, UsageError  # noqa: E402
from common.terminal import exit_code_of  # noqa: E402
from llmasos import evaluate, extras  # noqa: E402
from llmasos.cli import app  # noqa: E402
from llmasos.datasets import load_dataset  # noqa: E402
from llmasos.evaluation.folder import EvaluationOptions  # noqa: E402
from llmasos.evaluation.references import Example, WritingOptions, evaluate_references  # noqa: E402
from llmasos.models import BERT, GPT, T5  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402
from tests.support.plans import a_plan  # noqa: E402
from tests.support.researching import write_labelled, write_pairs, write_records  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

LABELS = {"type": "sequence-classification", "labels": ["german", "english"]}
PAIRS = {"type": "seq2seq", "source": "german", "target": "english"}
MODEL = {
    "type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
QUESTIONS = [
    {"question": "who", "context": "ann went home", "answer": "ann"},
    {"question": "who", "context": "it rained", "answer": ""},
    {"question": "where", "context": "bob is in rome", "answer": "rome"},
]


def bert() -> BERT:
    return BERT(16, 1, 2, max_position_embeddings=32, dropout=0.0)


def fitted(model: Any, data: Path, task: Any, folder: Path, *, steps: int = 2) -> Path:
    """Train a little and save; the folder."""
    model.fit(load_dataset(data, task=task, validation=0, test=0).train, Adam(lr=1e-2), steps=steps, batch_size=4)
    return Path(model.save(folder))


def run(*words: Any) -> str:
    """What the command prints."""
    found = CliRunner().invoke(app, ["evaluate", *map(str, words), "--threads", "1"])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled texts in two folders, 20 and 10 of them."""
    root = tmp_path_factory.mktemp("labelled")
    write_labelled(root / "a", count=20)
    write_labelled(root / "b", count=10, seed=1)
    return root


@pytest.fixture(scope="module")
def classifier(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted(bert(), records, LABELS, tmp_path_factory.mktemp("classifier") / "model", steps=5)


def test_a_classifier_has_accuracy_and_f1_by_folder_and_of_all(classifier: Path, records: Path) -> None:
    found = evaluate(classifier, records)
    assert (found.task, found.tokens, found.perplexity, found.bits_per_byte) == (LABELS["type"], 30, None, None)
    parts = list(found.languages.values())
    assert {name: one.documents for name, one in found.languages.items()} == {"a": 20, "b": 10}
    assert found.accuracy == pytest.approx(sum((one.accuracy or 0) * one.documents for one in parts) / 30)
    assert found.scores["micro_f1"] == pytest.approx(found.accuracy)
    assert {"loss", "accuracy"} <= set(found.intervals)
    by_hand = bert().load(classifier)
    right = [
        max(shares := by_hand.classify(one["text"]), key=lambda label: shares[label]) == one["label"]
        for folder in ("a", "b")
        for one in map(json.loads, (records / folder / "labelled.jsonl").read_text().splitlines())
    ]
    assert found.accuracy == sum(right) / 30


def test_a_plan_says_the_same_and_the_command_prints_it(classifier: Path, records: Path, tmp_path: Path) -> None:
    plan = a_plan(task=LABELS, model=MODEL, local={"sequence_length": 32})
    (tmp_path / "plan.yaml").write_text(json.dumps(plan.model_dump(mode="json", exclude_none=True)))
    found = evaluate(classifier, records, plan=plan)
    assert found.whole == evaluate(classifier, records).whole
    told = json.loads(run(classifier, records, "--plan", tmp_path / "plan.yaml", "--format", "json"))
    assert (told["task"], told["macro_f1"]) == (LABELS["type"], found.scores["macro_f1"])
    assert told["languages"]["b"]["accuracy"] == found.languages["b"].accuracy
    assert told["perplexity"] is told["bits_per_byte"] is told["ngram"] is None
    shown = run(classifier, records)
    assert "macro F1" in shown
    assert "nats a label: 30 of sequence-classification" in shown
    assert float(run(classifier, records, "--format", "quiet")) == pytest.approx(found.loss, abs=1e-6)
    words = ["evaluate", str(classifier), str(records), "--plan", str(tmp_path / "plan.yaml")]
    assert exit_code_of(app, [*words, "--sequence-length", "16"]) == 2
    assert exit_code_of(app, ["evaluate", str(classifier), "--references", "x", "--task", "masked-lm"]) == 2


def test_a_folder_of_transformers_own_names_its_labels_itself(classifier: Path, records: Path, tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    plain, numbered = tmp_path / "plain", tmp_path / "numbered"
    model = BertForSequenceClassification.from_pretrained(classifier)
    model.config.id2label = {0: "german", 1: "english"}
    for folder in (plain, numbered):
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes((classifier / "tokenizer.json").read_bytes())
        model.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert evaluate(plain, records).whole == evaluate(classifier, records).whole
    with pytest.raises(UnreadableData, match=r"has a label in field 'label' that is none of the plan's 2: 0, 1"):
        evaluate(numbered, records)


@pytest.mark.parametrize("next_sentence", [False, True])
def test_bert_is_measured_on_text_by_its_hidden_tokens_and_says_so(next_sentence: bool, tmp_path: Path) -> None:
    texts = make_institutions(tmp_path / "texts", count=1, documents=12)["clinic"]
    task = {"type": "masked-lm", "next_sentence": next_sentence}
    model = fitted(bert(), texts, task, tmp_path / "model")
    found = evaluate(model, texts, EvaluationOptions(sequence_length=32))
    assert found.task == "masked-lm"
    values = found.to_dict()
    assert values["masked_perplexity"] == pytest.approx(math.exp(found.loss))
    assert (values["masked_accuracy"], found.bits_per_byte) == (found.accuracy, None)
    assert not {"perplexity", "accuracy"} & set(values)
    assert set(found.intervals) == {"loss", "masked_perplexity", "masked_accuracy"}
    (model / "llmasos.json").unlink()
    assert evaluate(model, texts).loss == pytest.approx(found.loss)
    assert "masked acc." in run(model, texts)
    with pytest.raises(UsageError, match=r"holds a BERT that ends in .*, task causal-lm needs causal-lm"):
        evaluate(model, texts, EvaluationOptions(task="causal-lm"))
    (tmp_path / "short.txt").write_text("x")
    if next_sentence:
        with pytest.raises(TooLittleData, match="needs two segments of text"):
            evaluate(model, tmp_path / "short.txt")
    else:
        assert evaluate(model, tmp_path / "short.txt").tokens == 1


def test_an_encoder_decoder_writes_targets_that_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu")
    pairs = write_pairs(tmp_path / "pairs", count=12)
    model = T5(16, 1, 2, dropout_rate=0.0)
    folder = fitted(model, pairs, PAIRS, tmp_path / "model")
    found = evaluate(folder, pairs, EvaluationOptions(sequence_length=16, texts=5))
    assert found.task == "seq2seq"
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.scores["texts"] == 5
    assert set(found.scores) == {"bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "texts"}
    assert "BLEU" in run(folder, pairs, "--sequence-length", "16", "--texts", "2")
    assert evaluate(folder, pairs, EvaluationOptions(sequence_length=16, texts=0)).scores == {}
    split = load_dataset(pairs, model.tokenizer, task=PAIRS, validation=0, test=0).train
    mine = model.evaluate(split, sequence_length=16, texts=5)
    assert (mine.scores, mine.loss) == (found.scores, found.loss)
    written = evaluate_references(folder, [Example("drei ein", ("three one",))], WritingOptions(max_new_tokens=5))
    assert written.texts == (model.generate_text("drei ein", max_new_tokens=5, temperature=0).strip(),)
    present = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda package: None if package == "sacrebleu" else present(package))
    with pytest.raises(MissingExtra, match="To score what a model writes, sacrebleu must be installed"):
        evaluate(folder, pairs)


def test_questions_have_exact_match_and_f1_of_the_answer_in_the_whole_context(tmp_path: Path) -> None:
    data = write_records(tmp_path / "questions", QUESTIONS)
    model = fitted(bert(), data, "question-answering", tmp_path / "model", steps=40)
    found = evaluate(model, data)
    loaded = bert().load(model)
    said = [loaded.answer(one["question"], one["context"]) for one in QUESTIONS]
    right = [one["answer"] == answer for one, answer in zip(QUESTIONS, said, strict=True)]
    assert found.scores["exact_match"] == pytest.approx(sum(right) / 3)
    assert 0 < found.scores["exact_match"] <= found.scores["f1"] <= 1
    assert "exact_match" in found.intervals


def test_a_causal_model_is_measured_as_what_it_was_fitted_to_or_on_text(tmp_path: Path) -> None:
    talks = write_records(tmp_path / "talks", [{"prompt": f"say {n}", "response": f"{n}"} for n in range(8)])
    texts = make_institutions(tmp_path / "texts", count=1, documents=12)["clinic"]
    model = fitted(GPT(1, 2, 16, 32), talks, "instruction", tmp_path / "model")
    assert evaluate(model, talks).task == "instruction"
    found = evaluate(model, texts, EvaluationOptions(task="causal-lm"))
    assert found.bits_per_byte is not None
    with pytest.raises(UnreadableData, match=r"has no fields, and task instruction reads"):
        evaluate(model, texts)
    with pytest.raises(UsageError, match=r"reads records with fields, got max_tokens or text_column"):
        evaluate(model, talks, EvaluationOptions(max_tokens=5))
    with pytest.raises(UsageError, match=r"which no folder holds any more"):
        evaluate(model, talks, EvaluationOptions(task="preference"))
    with pytest.raises(
        UsageError, match=r"cannot be measured by task 'poetry', expected one of causal-lm, instruction"
    ):
        evaluate(model, talks, EvaluationOptions(task="poetry"))
    write_records(tmp_path / "long", [{"prompt": "x" * 99, "response": "y"}])
    with pytest.raises(TooLittleData, match=r"None of the data holds anything to measure for task instruction"):
        evaluate(model, tmp_path / "long")


def test_what_the_folder_and_the_plan_say_of_labels_must_agree(classifier: Path, records: Path) -> None:
    three = a_plan(task={**LABELS, "labels": ["a", "b", "c"]}, model=MODEL, local={"sequence_length": 32})
    with pytest.raises(UsageError, match=r"tells 2 labels apart, task sequence-classification names 3"):
        evaluate(classifier, records, plan=three)
    masked = a_plan(task={"type": "masked-lm"}, model=MODEL, local={"sequence_length": 32})
    with pytest.raises(UsageError, match=r"ends in sequence-classification, task masked-lm needs masked-lm"):
        evaluate(classifier, records, plan=masked)
    with pytest.raises(UsageError, match=r"ends in sequence-classification, which writes no text to compare"):
        evaluate_references(classifier, [Example("a", ("b",))])


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("tokenizer.json", "is no model folder: it holds no tokenizer.json"),
        ("model.safetensors", "is no model folder: it holds no model.safetensors"),
        ("config.json", "is no model folder"),
    ],
)
def test_a_folder_that_lacks_a_file_is_told_by_its_name(
    classifier: Path, records: Path, tmp_path: Path, absent: str, message: str
) -> None:
    copytree(classifier, tmp_path / "model")
    (tmp_path / "model" / absent).unlink()
    with pytest.raises(UsageError, match=message):
        evaluate(tmp_path / "model", records)


def test_an_institution_measures_what_the_plan_holds_out_of_its_own_records(
    classifier: Path, records: Path, tmp_path: Path
) -> None:
    plan = a_plan(
        task=LABELS,
        model=MODEL,
        local={"sequence_length": 32},
        evaluation={"held_out_fraction": "0.3", "max_tokens": 999},
    )
    held_out = load_dataset(records / "a", task=LABELS, validation=0.3, test=0, seed=plan.seed).validation
    found = evaluate(classifier, records / "a", EvaluationOptions(held_out=True), plan=plan)
    expected = bert().load(classifier).evaluate(held_out, sequence_length=32)
    assert (found.split, found.tokens, found.loss) == ("held-out", len(held_out), pytest.approx(expected.loss))
    assert len(held_out) < 20
    with pytest.raises(UsageError, match="What is held out of data, a plan says"):
        evaluate(classifier, records / "a", EvaluationOptions(held_out=True))
