"""Several tasks on one model from the SDK, and what is said where a model, its data and a loss do not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import TooLittleData, UsageError  # noqa: E402
from llmasos import models  # noqa: E402
from llmasos.datasets import Dataset, load_dataset  # noqa: E402
from llmasos.losses import CausalLMLoss, CrossEntropyLoss, MaskedLMLoss  # noqa: E402
from llmasos.models import BERT, GPT, T5  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402
from llmasos.tokenizers import train  # noqa: E402
from tests.support.researching import NUMBERS, WORDS  # noqa: E402

pytestmark = pytest.mark.torch

MIXTURE = {
    "type": "mixture",
    "tasks": [{"weight": 1, "task": {"type": "causal-lm"}}, {"weight": 3, "task": {"type": "instruction"}}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations about numbers, and texts of them."""
    root = tmp_path_factory.mktemp("mixed")
    talks = [{"prompt": f"{word} {n}", "response": NUMBERS[i]} for i, word in enumerate(WORDS) for n in range(20)]
    (root / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    for number in range(40):
        (root / f"{number:02}.txt").write_text(f"{number} " + " ".join([*WORDS, *NUMBERS] * 5))
    return root


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Dataset:
    return load_dataset(folder, train(folder, 300, text_column="prompt"), task=MIXTURE)


def test_a_mixture_is_fitted_measured_kept_and_asked(mixed: Dataset, tmp_path: Path) -> None:
    model = GPT(1, 2, 32, 32)
    history = model.fit(mixed.train, Adam(lr=5e-3), steps=60, batch_size=16, validation=mixed.validation)
    assert history[-1]["validation_loss"] < 0.5 * history[0]["loss"]
    found = models.load(model.save(tmp_path / "model"))
    assert found.task == model.task == mixed.train.task
    assert found.evaluate(mixed.test).loss == model.evaluate(mixed.test).loss
    assert found.chat([{"role": "user", "content": "zwei 7"}], temperature=0, max_new_tokens=5)
    assert found.generate_text("ein", max_new_tokens=3).startswith("ein")
    with pytest.raises(
        UsageError, match=r"was fitted to task mixture, expected task question-answering.*load_dataset\("
    ):
        found.answer("which", "one")


def test_an_epoch_of_a_mixture_is_the_rows_of_its_tasks_together(mixed: Dataset) -> None:
    model = GPT(1, 2, 8, 32)
    history = model.fit(mixed.train, epochs=1, batch_size=4)
    talks = sum(thing.part == 1 for thing in mixed.train)  # type: ignore[attr-defined]
    texts = load_dataset_of_texts(mixed)
    assert history.steps == -(-(texts / 32 + talks) // 4)
    assert repr(mixed.train).startswith(f"Split(train: {len(mixed.train)} records of")
    with pytest.raises(UsageError, match=r"The split train holds records for task mixture"):
        _ = mixed.train.num_tokens


def load_dataset_of_texts(mixed: Dataset) -> int:
    """Tokens of the mixture's texts, ends of documents included."""
    texts = [thing.content for thing in mixed.train if thing.part == 0]  # type: ignore[attr-defined]
    return sum(len(one.ids) + 1 for one in mixed.tokenizer.encode_batch(texts, add_special_tokens=False))


def test_what_was_fitted_to_records_is_measured_on_plain_text_too(folder: Path, mixed: Dataset) -> None:
    texts = load_dataset(folder, mixed.tokenizer, data_files={"train": "00.txt", "test": "01.txt"}).test
    talks = load_dataset(folder, mixed.tokenizer, data_files={"train": "talks.jsonl"}, task="instruction").train
    for split in (mixed.train, talks):
        model = GPT(1, 2, 8, 32)
        model.fit(split, steps=1)
        assert model.evaluate(texts).bits_per_byte is not None


@pytest.mark.parametrize(
    ("make", "task", "loss", "message"),
    [
        (
            T5,
            None,
            None,
            r"was loaded as plain text, and task seq2seq reads records.*load_dataset\(…, task='seq2seq'\)",
        ),
        (GPT, "masked-lm", None, r"fit: task masked-lm needs a model with head masked-lm \(bert\), got gpt2"),
        (BERT, "masked-lm", CausalLMLoss(), r"The data were loaded for task masked-lm, the loss is for causal-lm"),
        (
            BERT,
            "masked-lm",
            MaskedLMLoss(next_sentence=True),
            r"The data were loaded with next_sentence False, the loss says True",
        ),
        (
            BERT,
            "masked-lm",
            MaskedLMLoss(mlm_probability=0.3),
            r"The data were loaded with mask_fraction 0\.15, the loss says 0\.3",
        ),
        (BERT, "causal-lm", None, r"fit: task causal-lm needs a model with head causal-lm"),
    ],
)
def test_a_model_data_and_a_loss_that_do_not_go_together_are_one_sentence(
    folder: Path, make: Any, task: str | None, loss: Any, message: str
) -> None:
    data = load_dataset(folder, data_files={"train": "00.txt"}, task=task)
    with pytest.raises(UsageError, match=message):
        make().fit(data.train, loss=loss, steps=1, sequence_length=16)


def test_a_loss_that_says_what_the_data_say_is_taken(folder: Path) -> None:
    data = load_dataset(folder, data_files={"train": "00.txt"}, task={"type": "masked-lm", "mask_fraction": "0.30"})
    for loss in (None, CrossEntropyLoss(), MaskedLMLoss(mlm_probability=0.3)):
        model = BERT(16, 1, 2, max_position_embeddings=32)
        assert len(model.fit(data.train, loss=loss, steps=1)) == 1


def test_too_few_records_for_two_splits_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "few.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "c", "target": "d"}\n')
    with pytest.raises(TooLittleData, match=r"are 1 of 2 documents or records, too few to be shared by both.*test=0"):
        load_dataset(tmp_path, task="seq2seq")


def test_a_mixture_of_other_heads_is_one_sentence(folder: Path) -> None:
    parts = [{"weight": 1, "task": {"type": "causal-lm"}}, {"weight": 1, "task": {"type": "masked-lm"}}]
    with pytest.raises(UsageError, match=r"must share a head of the model, got causal-lm, masked-lm"):
        load_dataset(folder, task={"type": "mixture", "tasks": parts})
