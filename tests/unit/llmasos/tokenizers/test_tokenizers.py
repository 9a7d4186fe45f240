"""Tokenizers lose nothing, are the same for the same text, and end documents only where one ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import StorageFailure, TooLittleData, UnreadableData, UsageError
from llmasos.tokenizers import (
    END_OF_DOCUMENT,
    bytes_tokenizer,
    end_of_document_id,
    load,
    pad_id,
    save,
    train_bpe,
    vocab_size_of,
)
from llmasos.tokenizers.lengths import byte_lengths
from tests.support.texts import NAMES, make_text

pytestmark = pytest.mark.torch

TEXTS = [make_text(name, words=300, seed=0) for name in NAMES]
BPE = train_bpe(TEXTS, 400)
BYTES = bytes_tokenizer()


@settings(deadline=None)
@given(st.text())
def test_any_text_survives(text: str) -> None:
    for tokenizer in (BPE, BYTES):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@settings(deadline=None)
@given(st.text())
def test_a_token_of_the_bytes_tokenizer_is_a_byte(text: str) -> None:
    assert BYTES.encode(text).ids == list(text.encode())


def test_vocabularies_have_the_sizes_asked_for() -> None:
    assert (vocab_size_of(BPE), end_of_document_id(BPE)) == (400, 0)
    assert (vocab_size_of(BYTES), end_of_document_id(BYTES)) == (257, 256)


def test_too_short_a_text_gives_a_smaller_vocabulary() -> None:
    assert vocab_size_of(train_bpe(["ab"], 1000)) == 258


def test_no_text_trains_nothing() -> None:
    with pytest.raises(TooLittleData, match="There is no text to train a tokenizer on"):
        train_bpe([], 300)


def test_the_same_text_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    save(BPE, tmp_path / "a.json")
    program = (
        "import sys, json; from pathlib import Path; from llmasos.tokenizers import *; "
        "save(train_bpe(json.load(sys.stdin), 400), Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "b.json")],
        input=json.dumps(TEXTS).encode(),
        check=True,
        timeout=60,
    )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
def test_a_loaded_tokenizer_is_the_saved_one_and_text_cannot_end_a_document(tmp_path: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    save(tokenizer, tmp_path / "tokenizer.json")
    loaded = load(tmp_path / "tokenizer.json")
    text = f"before {END_OF_DOCUMENT} after"
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert ids == tokenizer.encode(text).ids
    assert end_of_document_id(loaded) not in ids
    save(loaded, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_a_given_file_cannot_cut_or_pad_our_text(tmp_path: Path) -> None:
    given_tokenizer = train_bpe(TEXTS, 300)
    given_tokenizer.enable_truncation(5)
    given_tokenizer.enable_padding(length=10)
    save(given_tokenizer, tmp_path / "tokenizer.json")
    assert len(load(tmp_path / "tokenizer.json").encode("x y z " * 20).ids) > 10


def test_files_that_are_no_tokenizer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(StorageFailure, match=r"tokenizer\.json could not be read: No such file"):
        load(path)
    path.write_text('{"model": 1}')
    with pytest.raises(UnreadableData, match=r"tokenizer\.json is not a tokenizers JSON file"):
        load(path)


def test_a_tokenizer_without_an_end_of_document_is_refused(tmp_path: Path) -> None:
    content = json.loads(BPE.to_str())
    content["added_tokens"] = []
    content["model"]["vocab"]["something"] = content["model"]["vocab"].pop(END_OF_DOCUMENT)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"has no special token that ends a document, expected one of <\|endoftext\|>"):
        load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(("tokens", "end", "pad"), [(["<pad>", "</s>"], 1, 0), (["[SEP]", "[PAD]", "<eos>"], 2, 1)])
def test_a_tokenizer_that_exists_ends_documents_as_its_models_do(
    tmp_path: Path, tokens: list[str], end: int, pad: int
) -> None:
    from tokenizers import Tokenizer, models

    made = Tokenizer(models.WordLevel({token: number for number, token in enumerate([*tokens, "cat"])}))
    made.add_special_tokens(tokens)
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = load(tmp_path / "tokenizer.json")
    assert (end_of_document_id(loaded), pad_id(loaded)) == (end, pad)


def test_byte_lengths_of_a_texts_tokens_add_up_to_its_bytes() -> None:
    text = "the cat sat — 今天天气怎么样 ☃"
    trained = train_bpe([text * 20, "the cat sat on the mat " * 20], 400)
    for tokenizer in (bytes_tokenizer(), trained):
        lengths = byte_lengths(tokenizer)
        assert lengths[tokenizer.encode(text).ids].sum() == len(text.encode())
        assert lengths[end_of_document_id(tokenizer)] == 0
    assert trained.encode("the").ids[0] > 256 or byte_lengths(trained).max() > 1


def test_byte_lengths_of_words_are_those_of_what_they_decode_to() -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"猫": 0, "cat": 1}, unk_token="cat"))
    assert byte_lengths(words).tolist() == [3, 3]
