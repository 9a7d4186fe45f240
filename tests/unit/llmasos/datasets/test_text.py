"""Folders of text become the same documents, and the same split, everywhere."""

from __future__ import annotations

import csv
import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import StorageFailure, TooLittleData, UnreadableData, UsageError
from llmasos.datasets import formats
from llmasos.datasets.text import Document, read_documents, split_documents
from tests.support.texts import NAMES, make_institutions

SECRET = "Mrs Miller, record 4711"


def names_of(folder: Path, **options: str) -> list[str]:
    return [document.name for document in read_documents(folder, **options)]


def texts_of(folder: Path, **options: str) -> list[str]:
    return [document.text for document in read_documents(folder, **options)]


def test_a_file_is_a_document_and_paths_are_sorted_by_their_bytes(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "B.py", "a.txt", "é.txt", "a/skip.bin", "UPPER.TXT"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}", encoding="utf-8")
    assert names_of(tmp_path) == ["B.py", "UPPER.TXT", "a.txt", "a/z.md", "b.txt", "é.txt"]


def test_hidden_and_empty_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for name, text in ((".git/a.txt", "x"), (".b.txt", "x"), ("c.txt", ""), ("d.txt", " \n\t"), ("e.txt", "kept")):
        (tmp_path / name).write_text(text)
    assert names_of(tmp_path) == ["e.txt"]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    (inside / "own.txt").write_text("own")
    (inside / "file.txt").symlink_to(outside / "secret.txt")
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    (inside / "gone.txt").symlink_to(inside / "nothing.txt")
    (inside / "loop.txt").symlink_to(inside / "loop.txt")
    (inside / "alias.txt").symlink_to("own.txt")
    assert names_of(inside) == ["alias.txt", "own.txt"]
    (tmp_path / "link").symlink_to(inside, target_is_directory=True)
    assert names_of(tmp_path / "link") == ["alias.txt", "own.txt"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("a")
    assert names_of(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfna\xc3\xafve\r\nline\r", "naïve\nline\n"),
        ("naïve".encode("utf-16"), "naïve"),
        ("naïve".encode("utf-32"), "naïve"),
        (b"na\xefve", "na\ufffdve"),
    ],
    ids=["utf-8 with mark", "utf-16", "utf-32", "latin-1"],
)
def test_every_encoding_gives_text(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert texts_of(tmp_path) == [expected]


def test_records_of_jsonl_are_documents(tmp_path: Path) -> None:
    lines = ['\ufeff{"note": "one"}', "", '{"note": null}', '{"note": "two\\nlines", "id": 7}', '{"note": "\\ud800"}']
    (tmp_path / "a.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    assert list(read_documents(tmp_path, text_column="note")) == [
        Document("a.jsonl:1", "one"),
        Document("a.jsonl:4", "two\nlines"),
        Document("a.jsonl:5", "?"),
    ]


def test_records_of_csv_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffid,text\n1,"one, and\ntwo"\n2,\n\n3,three\n', encoding="utf-8")
    assert texts_of(tmp_path) == ["one, and\ntwo", "three"]


def test_huge_lines_and_fields_are_read(tmp_path: Path) -> None:
    text = "word " * 200_000
    (tmp_path / "a.csv").write_text(f'text\n"{text}"\n')
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": text}))
    (tmp_path / "c.txt").write_text(text)
    assert texts_of(tmp_path) == [text] * 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"text": "%s"', "a.jsonl:2 is not a line of JSON."),
        ("a.jsonl", "[" * 100_000 + "%s", "a.jsonl:1 is not a line of JSON."),
        ("a.jsonl", '"%s"', "a.jsonl:1 is not a JSON object."),
        ("a.jsonl", '{"%s": "x"}', "a.jsonl:1 has no column 'text'."),
        ("a.jsonl", '{"text": ["%s"]}', "a.jsonl:1 holds something other than text in column 'text'."),
        ("a.csv", "id,%s\n1,x\n", "a.csv:1 has no column 'text'."),
        ("a.csv", "id,text\n1,x\n%s\n", "a.csv:3 ends before column 'text'."),
        ("a.csv", "id\ttext\n1\t%s\n", "a.csv:1 has a single column: its fields are separated by tabs"),
    ],
    ids=["cut line", "deep", "not an object", "no field", "a list", "no header", "short record", "tabs"],
)
def test_a_broken_record_is_named_by_file_and_line_and_its_text_stays_here(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content.replace("%s", SECRET.replace(",", "")))
    with pytest.raises(UnreadableData) as caught:
        list(read_documents(tmp_path))
    assert message in str(caught.value)
    assert "Miller" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_field_beyond_the_limit_is_named_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_FIELD_CHARACTERS", 10)
    before = csv.field_size_limit(10)
    (tmp_path / "a.csv").write_text(f"text\nshort\n{SECRET}\n")
    try:
        with pytest.raises(UnreadableData, match=r"a\.csv:3 is not a CSV record"):
            list(read_documents(tmp_path))
    finally:
        csv.field_size_limit(before)


def test_a_single_file_is_a_folder_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.pdf").write_text("a")
    assert names_of(tmp_path / "a.txt") == ["a.txt"]
    with pytest.raises(UsageError, match=r"a\.pdf is not a format that is read"):
        names_of(tmp_path / "a.pdf")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent is not a folder of text"):
        names_of(tmp_path / "absent")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(StorageFailure, match=r"a\.txt could not be read: Permission denied"):
        names_of(tmp_path)


@pytest.mark.parametrize("form", ["txt", "md", "py", "jsonl", "csv"])
def test_all_formats_carry_the_same_text(tmp_path: Path, form: str) -> None:
    reference = make_institutions(tmp_path / "reference", count=1)
    folders = make_institutions(tmp_path / "other", count=1, form=form)
    assert texts_of(folders[NAMES[0]]) == texts_of(reference[NAMES[0]])


def documents(*texts: str) -> list[Document]:
    return [Document(str(number), text) for number, text in enumerate(texts)]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=2, max_size=30), st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_each_side_gets_a_document_and_none_is_lost(texts: list[str], seed: int, fraction: float) -> None:
    train, held_out = split_documents(documents(*texts), fraction, seed=seed)
    assert train
    assert held_out
    assert sorted((*train, *held_out), key=lambda document: int(document.name)) == documents(*texts)


def test_documents_keep_their_side_when_others_are_added() -> None:
    before = documents(*(f"document {number}" for number in range(100)))
    after = [*documents(*(f"new {number}" for number in range(100))), *before]
    train, held_out = split_documents(before, Decimal("0.2"), seed=3)
    more_train, more_held_out = split_documents(after, Decimal("0.2"), seed=3)
    assert set(train) <= set(more_train)
    assert set(held_out) <= set(more_held_out)
    assert 10 <= len(held_out) <= 32


def test_another_seed_gives_another_split() -> None:
    texts = documents(*(f"document {number}" for number in range(100)))
    assert split_documents(texts, 0.2, seed=1) != split_documents(texts, 0.2, seed=2)


def test_a_single_document_is_cut_by_lines() -> None:
    text = "".join(f"line {number}\n" for number in range(10))
    train, held_out = split_documents(documents(text), Decimal("0.1"), seed=0)
    assert [document.text for document in held_out] == ["line 9\n"]
    assert train[0].text + held_out[0].text == text
    assert (train[0].name, held_out[0].name) == ("0#train", "0#held-out")


def test_a_single_line_is_cut_between_characters() -> None:
    train, held_out = split_documents(documents("abcdefghij"), 0.2, seed=0)
    assert (train[0].text, held_out[0].text) == ("abcdefgh", "ij")


def test_too_little_data_names_the_folder_and_the_count() -> None:
    with pytest.raises(TooLittleData, match="/data/notes holds no text: 0 documents, at least 1 is needed"):
        split_documents([], 0.1, seed=0, source="/data/notes")
    with pytest.raises(TooLittleData, match="/data/notes holds one document of one character"):
        split_documents(documents("x"), 0.1, seed=0, source="/data/notes")
