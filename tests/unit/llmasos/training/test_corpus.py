"""An institution's tokens: encoded once, owner-only, enough or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from common.errors import TooLittleData
from llmasos.tokenizers import bytes_tokenizer, save
from llmasos.training import corpus as corpora
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from tests.support.jobs import a_training_plan
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_institutions(tmp_path, count=2)
    save(bytes_tokenizer(), tmp_path / "tokenizer.json")
    return tmp_path


def prepare(place: Path, *names: str, **changes: object) -> Corpus:
    sources = [Source(place / name) for name in names or ("clinic",)]
    return prepare_corpus(sources, place / "tokenizer.json", place / "tokens", a_training_plan(**changes))


def test_tokens_are_found_again_after_a_restart(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepare(place) as first:
        expected = first.batch(seed=1, step=2)

    def refuse(*arguments: object) -> None:
        raise AssertionError("encoded twice")

    monkeypatch.setattr(corpora, "write_tokens", refuse)
    with prepare(place) as second:
        assert (second.batch(seed=1, step=2) == expected).all()
        assert second.facts == first.facts


def test_changed_text_another_split_or_folder_is_encoded_anew(place: Path) -> None:
    with prepare(place) as before:
        pass
    (place / "clinic" / "new.txt").write_text("more text\n" * 50)
    with prepare(place) as after:
        assert after.facts.documents == before.facts.documents + 1
    with prepare(place, "clinic", "bank") as both:
        assert both.facts.documents == 17
    with prepare(place, seed=8):
        pass
    assert len(list((place / "tokens").iterdir())) == 4


def test_damaged_tokens_are_made_again(place: Path) -> None:
    with prepare(place) as before:
        os.truncate(before.train.path, 100)
    with prepare(place) as after:
        assert after.facts == before.facts
        assert after.batch(seed=0, step=0).shape == (4, 33)


def test_tokens_are_for_their_owner_only(place: Path) -> None:
    with prepare(place) as corpus:
        assert stat.S_IMODE(corpus.train.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(corpus.train.path.parent.stat().st_mode) == 0o700


def test_too_little_text_names_folder_and_counts(place: Path) -> None:
    (place / "small").mkdir()
    (place / "small" / "a.txt").write_text("one\ntwo\n")
    with pytest.raises(
        TooLittleData, match=r"small holds 5 tokens to train on in 2 documents, the plan needs at least 33"
    ):
        prepare(place, "small")
