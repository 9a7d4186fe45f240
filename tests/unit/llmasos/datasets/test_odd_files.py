"""Files that are half written, or in another encoding or format, are read right or named in one sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

pytest.importorskip("torch")

from common.errors import LLMasOSError
from llmasos.datasets import load_dataset

GERMAN = "Die Ärztin prüft täglich größere Mengen. Übel.\n" * 50
LINE = b'{"text": "one two three"}\n'
PACKED = gzip.compress(LINE * 500)

READ = {
    "UTF-16 with its mark": ("a.txt", GERMAN.encode("utf-16")),
    "UTF-32 with its mark": ("a.txt", GERMAN.encode("utf-32")),
    "UTF-8 with its mark": ("a.txt", GERMAN.encode("utf-8-sig")),
    "JSON lines in UTF-16": (
        "a.jsonl",
        "".join(f'{{"text": "{line}"}}\n' for line in GERMAN.splitlines()).encode("utf-16"),
    ),
    "old line ends": ("a.txt", GERMAN.replace("\n", "\r\n").encode()),
}
REFUSED = {
    "Latin-1": ("a.txt", GERMAN.encode("latin-1"), r"a\.txt .* is not UTF-8: 300 of its 2,350 .*broken.*ISO-8859-1"),
    "UTF-16 without its mark": ("a.txt", GERMAN.encode("utf-16-be"), r"a\.txt .* is not UTF-8"),
    "NUL bytes": ("a.txt", b"abc\0" * 50, r"a\.txt .* is not UTF-8: 50 of its 200 characters are broken"),
    "NUL bytes in a field": ("a.csv", b'text,x\n"a\0b",1\n"a",2\n', r"a\.csv:2 .* is not UTF-8"),
    "escaped NULs": ("a.jsonl", b'{"text": "a\\u0000\\u0000"}\n', r"a\.jsonl:1 .* is not UTF-8"),
    "Latin-1 in JSON": ("a.jsonl", '{"text": "größe"}\n'.encode("latin-1"), r"a\.jsonl:1 .* is not UTF-8"),
    "half a JSON line": ("a.jsonl", LINE * 5 + LINE[:12], r"a\.jsonl:6 is not a line of JSON.*one JSON object a line"),
    "half a CSV record": ("a.csv", b'text,x\n"a b",1\n"a', r"a\.csv:3 is not a CSV record"),
    "gzip under another name": ("a.txt", PACKED[:-9], r"a\.txt .* is not UTF-8"),
    "gzip, half written": ("a.jsonl.gz", PACKED[:-9], r"holds no text or records.*\.jsonl and \.csv files are read"),
    "parquet": ("a.parquet", b"PAR1" + bytes(100), r"holds no text or records.*\.jsonl and \.csv files are read"),
    "safetensors": ("a.safetensors", bytes(8), r"holds no text or records"),
    "no text": ("a.txt", b" \n", r"holds no text or records"),
    "another column": ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1 has no column 'text'.*text_column="),
}


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("case", READ)
def test_an_encoding_that_says_its_name_is_read(tmp_path: Path, case: str) -> None:
    data = load_dataset(write(tmp_path, *READ[case]), validation=0, test=0)
    joined = "".join(document.content for document in data.train)
    assert joined.replace("\n", "") == GERMAN.replace("\n", "")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, case: str) -> None:
    name, content, message = REFUSED[case]
    with pytest.raises(LLMasOSError, match=message):
        load_dataset(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.json"])
def test_a_file_of_another_format_is_named_with_those_that_are_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(LLMasOSError, match=rf"{name} is not a format that is read.*Read are \.csv, \.jsonl, \.md"):
        load_dataset(write(tmp_path, name, PACKED) / name)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("sequence", r"load_dataset: task\.type: expected one of 'causal-lm', .*, got 'sequence'.*docs/tasks\.md"),
        ({"type": "seq2seq", "sorce": "x"}, r"load_dataset: task\.sorce: unknown field; did you mean 'source'"),
        ({"type": "sequence-classification"}, r"load_dataset: task\.labels: expected a value"),
    ],
)
def test_a_task_that_is_none_is_one_sentence(tmp_path: Path, task: object, message: str) -> None:
    with pytest.raises(LLMasOSError, match=message):
        load_dataset(write(tmp_path, "a.txt", b"text"), task=task)  # type: ignore[arg-type]
