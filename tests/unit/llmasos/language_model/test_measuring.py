"""An evaluation's numbers are what their names say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import llmasos  # noqa: E402
from common.errors import UsageError  # noqa: E402
from llmasos.datasets import Dataset, load_dataset  # noqa: E402
from llmasos.models import BERT, GPT  # noqa: E402
from llmasos.optimizers import Adam  # noqa: E402
from tests.support.researching import write_labelled  # noqa: E402

pytestmark = pytest.mark.torch


def test_an_evaluation_is_what_a_plain_loop_over_the_documents_finds(data: Dataset, tiny: GPT) -> None:
    tiny.fit(data.train, Adam(lr=1e-2), steps=30)
    found = tiny.evaluate(data.train, batch_size=3, ngram=data.validation)
    split, nats, correct, total = data.train, 0.0, 0, 0
    for document in split:
        ids = torch.tensor([0, *split.tokenizer.encode(document.content).ids, 0])
        for start in range(0, len(ids) - 1, 16):
            window = ids[start : start + 17]
            with torch.no_grad():
                logits = tiny.module(input_ids=window[None, :-1]).logits[0]
            nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            correct += int((logits.argmax(-1) == window[1:]).sum())
            total += len(window) - 1
    assert found.tokens == total == split.num_tokens
    assert found.loss == pytest.approx(nats / total, abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(nats / total), rel=1e-3)
    text_bytes = sum(len(document.content.encode()) for document in split)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-4)
    assert found.accuracy == correct / total > 0
    assert found.tokens_per_second == pytest.approx(total / found.seconds)
    assert found.intervals["bits_per_byte"].low < found.bits_per_byte < found.intervals["bits_per_byte"].high
    assert found.counted is not None
    assert found.counted.text.startswith("validation of ")
    assert found.whole.ngram is not None
    assert found.whole.ngram.tokens == total


def test_the_sdk_and_the_command_measure_the_same(data: Dataset, tiny: GPT, folder: Path, tmp_path: Path) -> None:
    tiny.fit(data.train, steps=1)
    everything = load_dataset(folder, data.tokenizer, validation=0, test=0).train
    mine = tiny.evaluate(everything, ngram=True)
    theirs = llmasos.evaluate(tiny.save(tmp_path / "model"), folder)
    assert theirs.whole == mine.whole
    assert (theirs.languages, theirs.intervals, theirs.counted) == (mine.languages, mine.intervals, mine.counted)


def test_a_record_of_labels_has_no_n_gram_beside_it(tmp_path: Path, data: Dataset, tiny: GPT) -> None:
    labels = {"type": "sequence-classification", "labels": ["german", "english"]}
    labelled = load_dataset(write_labelled(tmp_path), task=labels, validation=0)
    model = BERT(16, 1, 2, max_position_embeddings=32)
    model.fit(labelled.train, steps=1)
    with pytest.raises(UsageError, match="stands beside task causal-lm, got sequence-classification"):
        model.evaluate(labelled.test, ngram=True)
    tiny.fit(data.train, steps=1)
    with pytest.raises(UsageError, match="is a split of records for task sequence-classification, not of text"):
        tiny.evaluate(data.test, ngram=labelled.test)


def test_an_evaluation_is_a_dict_and_a_table_too(data: Dataset, tiny: GPT) -> None:
    tiny.fit(data.train, steps=1)
    found = tiny.evaluate(data.test)
    assert list(found.to_dict()) == [
        "split", "task", "loss", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "accuracy", "tokens",
        "seconds", "tokens_per_second",
    ]  # fmt: skip
    assert repr(found).startswith(f"Evaluation(split='test', task='causal-lm', loss={found.loss:.4g}, ")
    assert "<td>test</td>" in found._repr_html_()
    assert not tiny.module.training, "a measured model stays in evaluation mode"
