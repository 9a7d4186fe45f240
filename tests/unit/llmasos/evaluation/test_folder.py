"""A model folder on a folder of text: the same sums in any batch, exact bytes, languages, and an n-gram row beside."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.errors import TooLittleData, UsageError  # noqa: E402
from common.plan.model import GPT2  # noqa: E402
from common.terminal import exit_code_of  # noqa: E402
from llmasos import evaluate  # noqa: E402
from llmasos.cli import app  # noqa: E402
from llmasos.datasets.text import Document  # noqa: E402
from llmasos.evaluation.documents import windows_of  # noqa: E402
from llmasos.evaluation.folder import EvaluationOptions  # noqa: E402
from llmasos.generation import load_module  # noqa: E402
from llmasos.models.build import build_model, export_hf  # noqa: E402
from llmasos.tasks.causal_lm import next_token_nats  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, save, train_bpe  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

MODEL = GPT2(n_layer=2, n_head=2, n_embd=16, n_positions=32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "model"
    folder.mkdir()
    save(bytes_tokenizer(), folder / "given.json")
    export_hf(build_model(MODEL, vocab_size=257, seed=0), folder / "given.json", folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, read as languages, of six documents each."""
    root = tmp_path_factory.mktemp("texts")
    make_institutions(root, count=2, documents=6, words=40)
    return root


def test_nats_are_those_of_each_document_alone_from_its_beginning_to_its_end(model: Path, tmp_path: Path) -> None:
    texts = {"a.txt": "short", "b.txt": "ein längerer Text, der über mehr als ein Fenster geht: 今天天气怎么样？"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = evaluate(model, tmp_path, EvaluationOptions(batch_size=3))
    network, expected, hits = load_module(model), 0.0, 0
    for text in texts.values():
        ids = [256, *text.encode(), 256]
        for first in range(0, len(ids) - 1, 32):
            window = torch.tensor([ids[first : first + 33]])
            with torch.no_grad():
                expected += float(next_token_nats(network, window).sum())
                hits += int((network(window[:, :-1]).logits.argmax(-1) == window[:, 1:]).sum())
    size = sum(len(text.encode()) for text in texts.values())
    whole = found.whole.model
    assert whole.nats == pytest.approx(expected, rel=1e-5)
    assert (whole.tokens, whole.text_bytes, whole.words) == (size + 2, size, 12)
    assert found.whole.accuracy == pytest.approx(hits / (size + 2))
    assert whole.bits_per_byte == pytest.approx(expected / size / math.log(2), rel=1e-5)
    assert found.interval_unit == "windows"


def test_folders_are_languages_and_their_sums_are_the_whole(model: Path, data: Path) -> None:
    found = evaluate(model, data)
    assert set(found.languages) == {"bank", "clinic"}
    parts = list(found.languages.values())
    together, whole = parts[0].model + parts[1].model, found.whole.model
    assert together.nats == pytest.approx(whole.nats)
    assert (together.tokens, together.words, together.text_bytes) == (whole.tokens, whole.words, whole.text_bytes)
    assert found.whole.documents == 12
    assert found.interval_unit == "documents"
    interval = found.intervals["bits_per_byte"]
    assert interval is not None
    assert interval.low < found.whole.model.bits_per_byte < interval.high


def test_the_batch_size_changes_nothing(model: Path, data: Path) -> None:
    one, many = (evaluate(model, data, EvaluationOptions(batch_size=size, ngram=False)) for size in (1, 64))
    assert one.whole.model.nats == pytest.approx(many.whole.model.nats, rel=1e-6)
    assert one.whole.ngram is None


def test_the_n_gram_model_counted_beats_an_untrained_model(model: Path, data: Path, tmp_path: Path) -> None:
    crossed = evaluate(model, data)
    assert crossed.whole.ngram is not None
    assert crossed.whole.ngram.bits_per_byte < 4 < crossed.whole.model.bits_per_byte
    assert crossed.counted is not None
    assert crossed.counted.text == "the other four fifths of the same text"

    assert crossed.counted.num_tokens < crossed.whole.model.tokens
    cheating = evaluate(model, data, EvaluationOptions(ngram_text=data))
    assert cheating.whole.ngram is not None
    # It counted the very text that it is measured on.
    assert cheating.whole.ngram.bits_per_byte < 0.7 * crossed.whole.ngram.bits_per_byte
    (tmp_path / "x.txt").write_text("ab")
    assert evaluate(model, tmp_path).whole.ngram is None


def test_a_field_of_records_is_their_language(model: Path, tmp_path: Path) -> None:
    records = [{"text": f"text {number}", "lang": "de" if number % 3 else "en"} for number in range(9)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = evaluate(model, tmp_path, EvaluationOptions(language_field="lang"))
    assert {name: one.documents for name, one in found.languages.items()} == {"de": 6, "en": 3}


def test_a_sample_is_of_whole_documents_and_the_same_for_the_same_seed(model: Path, data: Path) -> None:
    few = [evaluate(model, data, EvaluationOptions(max_tokens=500, seed=seed, ngram=False)).whole for seed in (1, 1, 2)]
    assert few[0] == few[1]
    assert few[0].documents < 12
    assert few[0].model.nats != few[2].model.nats


def test_windows_of_any_length_hold_all_bytes_and_words_once() -> None:
    text = "das grüne Haus, 今天天气怎么样, " * 20
    tokenizer = train_bpe([text], 300)
    for length in (1, 7, 10_000):
        windows = list(windows_of([Document("a", text)], tokenizer, length))
        assert sum(window.text_bytes for window in windows) == len(text.encode())
        assert sum(window.words for window in windows) == len(text.split())
        stream = np.concatenate([windows[0].tokens[:1], *(window.tokens[1:] for window in windows)])
        assert list(stream[1:-1]) == tokenizer.encode(text).ids
        assert stream[0] == stream[-1] == 0


def test_what_cannot_be_measured_is_told_in_a_sentence(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TooLittleData, match="holds no text: 0 documents"):
        evaluate(model, tmp_path)
    with pytest.raises(UsageError, match="sequence_length is 33, expected 8 to 32, the model's context"):
        evaluate(model, data, EvaluationOptions(sequence_length=33))
    with pytest.raises(UsageError, match="is no model folder"):
        evaluate(tmp_path, data)


def test_the_command_prints_a_table_json_or_one_number(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(app, ["evaluate", str(model), str(data), "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "n-gram" in told
    assert "clinic" in told
    assert "tokens/s on cpu" in told
    assert max(map(len, told.splitlines()[:8])) <= 80
    assert exit_code_of(app, ["evaluate", str(model), str(data), "--threads", "1", "--format", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["languages"]["clinic"]["ngram"]["bits_per_byte"] < value["bits_per_byte"]
    assert value["intervals"]["bits_per_byte"]["low"] < value["bits_per_byte"]
    assert exit_code_of(app, ["evaluate", str(model), str(data), "--threads", "1", "--format", "quiet"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(value["bits_per_byte"], abs=1e-6)
    assert exit_code_of(app, ["evaluate", str(model)]) == 2
    assert "There is nothing to measure on" in capsys.readouterr().err
