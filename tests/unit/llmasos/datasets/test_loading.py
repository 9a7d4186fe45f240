"""A folder becomes three splits that nobody's clock or file system changes, and what is no text is named."""

from __future__ import annotations

import gc
import stat
from pathlib import Path

import pytest

pytest.importorskip("torch")

from common.errors import InvalidConfiguration, TooLittleData, UnreadableData, UsageError
from common.plan.tasks import CausalLM
from llmasos.datasets import load_dataset
from llmasos.datasets.splitting import recipe_plan
from llmasos.datasets.text import read_documents, split_documents
from llmasos.tokenizers import bytes_tokenizer, save, train
from tests.support.texts import make_institutions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_institutions(tmp_path_factory.mktemp("corpus"), count=1, documents=40, words=30)["clinic"]


def test_every_document_is_in_one_split_and_stays_there(folder: Path) -> None:
    data = load_dataset(folder)
    names = [document.name for name in data for document in data[name]]
    assert sorted(names) == sorted(document.name for document in read_documents(folder))
    assert len(data.train) > 25
    assert min(len(data.validation), len(data.test)) >= 1
    again = load_dataset(folder)
    assert [one.name for one in again.test] == [one.name for one in data.test]
    assert [one.name for one in load_dataset(folder, seed=1).test] != [one.name for one in data.test]


def test_validation_is_what_an_institution_holds_out(folder: Path) -> None:
    _, held_out = split_documents(read_documents(folder), 0.1, seed=3, source="x")
    assert list(load_dataset(folder, test=0, seed=3).validation) == held_out


def test_shares_may_be_nothing(folder: Path) -> None:
    data = load_dataset(folder, validation=0, test=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 0, 0)
    with pytest.raises(TooLittleData, match=r"The split test of .* is empty.*load_dataset\(…, test=0\.1\)"):
        _ = data.test.num_tokens
    with pytest.raises(InvalidConfiguration, match=r"validation is 0\.5 and test 0\.5, expected shares"):
        load_dataset(folder, validation=0.5, test=0.5)


def test_one_document_is_cut_in_three(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n".join(f"line {number}" for number in range(100)))
    data = load_dataset(tmp_path / "book.txt")
    text = "".join(document.content for name in data for document in data[name])
    assert text == (tmp_path / "book.txt").read_text()
    assert data.train[0].content.startswith("line 0")


def test_a_unit_is_never_divided(tmp_path: Path) -> None:
    lines = [f'{{"text": "note {number}", "patient": {number % 20}}}' for number in range(100)]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines))
    data = load_dataset(tmp_path, unit_field="patient", validation=0.2, test=0.2)
    units = [{document.unit for document in data[name]} for name in data]
    assert sum(map(len, units)) == len(set.union(*units)) == 20


def test_tokens_are_private_and_go_with_the_dataset(folder: Path, tmp_path: Path) -> None:
    data = load_dataset(folder)
    place = data.train._encoded(recipe_plan(CausalLM()))[0]
    assert data.train.num_tokens == data.train.num_bytes + len(data.train)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    del data
    gc.collect()
    assert not place.parent.exists()


def test_kept_tokens_are_found_again_and_never_taken_for_others(folder: Path, tmp_path: Path) -> None:
    def load(tokenizer: object) -> tuple[Path, int]:
        split = load_dataset(folder, tokenizer, cache_dir=tmp_path / "cache").train
        path, written = split._encoded(recipe_plan(CausalLM()))
        assert written.tokens == split.num_tokens
        return path, path.stat().st_mtime_ns

    first = load(None)
    assert load(None) == first
    assert load(train(folder, vocab_size=300))[0] != first[0]
    assert first[0].exists()


def test_a_tokenizer_is_taken_in_every_form(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for given in (tmp_path, str(tmp_path / "tokenizer.json"), fast, bytes_tokenizer()):
        assert load_dataset(folder, given).train.num_tokens == load_dataset(folder).train.num_tokens
    with pytest.raises(UsageError, match="A int is no tokenizer"):
        load_dataset(folder, 7)


@pytest.mark.parametrize("read", [load_dataset, train])
def test_text_in_another_encoding_is_named_and_what_to_do(tmp_path: Path, read: object) -> None:
    (tmp_path / "a.txt").write_text("今天天气怎么样？" * 10, encoding="gb18030")
    with pytest.raises(UnreadableData, match=r"a\.txt in .* is not UTF-8: .* characters are broken.*iconv -f GB18030"):
        read(tmp_path)  # type: ignore[operator]
    (tmp_path / "a.txt").write_text("plain text" * 10, encoding="utf-16-le")
    with pytest.raises(UnreadableData, match=r"a\.txt in .* is not UTF-8"):
        read(tmp_path)  # type: ignore[operator]


def test_a_text_that_quotes_one_broken_byte_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"line\n" * 1000 + b"\xff\n")
    assert len(load_dataset(tmp_path, validation=0, test=0).train) == 1


def test_a_folder_without_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(TooLittleData, match="holds no text or records"):
        load_dataset(tmp_path)
    with pytest.raises(TooLittleData, match="holds no text to train a tokenizer on"):
        train(tmp_path)
    with pytest.raises(InvalidConfiguration, match="vocab_size is 10, expected at least 263"):
        train(tmp_path, vocab_size=10)
