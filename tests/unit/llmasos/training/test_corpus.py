"""An institution's tokens: encoded once, owner-only, enough or refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from common.errors import TooLittleData, UnreadableData
from llmasos.datasets.tokens import TokenFile
from llmasos.tasks import windows
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tokenizers import bytes_tokenizer, save
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
        expected = first.batch(seed=1, step=2)[TOKENS]

    def refuse(*arguments: object) -> None:
        raise AssertionError("encoded twice")

    monkeypatch.setattr(windows, "write_tokens", refuse)
    with prepare(place) as second:
        assert (second.batch(seed=1, step=2)[TOKENS] == expected).all()
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
        assert after.batch(seed=0, step=0)[TOKENS].shape == (4, 33)


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


@pytest.mark.parametrize(
    "content", ["今天天气怎么样？".encode("gb18030") * 20, "größe\n".encode("latin-1") * 20, b"text\n" + b"\0" * 512]
)
def test_text_in_another_encoding_or_cut_off_by_a_crash_is_named(place: Path, content: bytes) -> None:
    (place / "clinic" / "odd.txt").write_bytes(content)
    with pytest.raises(
        UnreadableData, match=r"^odd\.txt in .*clinic is not UTF-8: [0-9]+ of its [0-9]+ characters are broken"
    ):
        prepare(place)


def test_no_unit_s_text_is_both_trained_on_and_held_out_across_data_sets(place: Path) -> None:
    patients = [f"patient {number:02} " for number in range(30)]
    (place / "notes").mkdir()
    (place / "letters").mkdir()
    lines = [json.dumps({"text": name * 9, "patient_id": name.strip()}) for name in patients]
    (place / "notes" / "a.jsonl").write_text("\n".join(lines))
    rows = "".join(f"{name.strip()},{name * 5}\n" for name in patients)
    (place / "letters" / "b.csv").write_text(f"id,text\n{rows}")
    sources = [Source(place / "notes", unit_field="patient_id"), Source(place / "letters", unit_field="id")]
    with prepare_corpus(sources, place / "tokenizer.json", place / "tokens", a_training_plan()) as corpus:
        sides = [bytes(one.read(0, one.count).clip(max=255).tolist()).decode("latin-1") for one in _files(corpus)]
        assert corpus.facts.documents == 60
        assert corpus.facts.held_out_documents % 2 == 0
    for name in patients:
        assert sorted(side.count(name) for side in sides) == [0, 14]


def test_another_unit_field_is_another_split(place: Path) -> None:
    (place / "notes").mkdir()
    lines = [json.dumps({"text": "word " * 20 + str(n), "a": n // 2, "b": n // 3}) for n in range(30)]
    (place / "notes" / "a.jsonl").write_text("\n".join(lines))
    for field in (None, "a", "b"):
        source = Source(place / "notes", unit_field=field)
        prepare_corpus([source], place / "tokenizer.json", place / "tokens", a_training_plan()).close()
    assert len(list((place / "tokens").iterdir())) == 3


def test_tokens_are_for_their_owner_only_whatever_the_umask(place: Path) -> None:
    (place / "tokens").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        with prepare(place) as corpus:
            folder = corpus.train.path.parent
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, *folder.iterdir())}
    assert modes == {
        "tokens": 0o700,
        folder.name: 0o700,
        "train.tokens": 0o600,
        "held_out.tokens": 0o600,
        "facts.json": 0o600,
    }


def _files(corpus: Corpus) -> tuple[TokenFile, TokenFile]:
    found = (corpus.train, corpus.held_out)
    assert isinstance(found[0], windows.Windows)
    assert isinstance(found[1], windows.Windows)
    return found[0].file, found[1].file
