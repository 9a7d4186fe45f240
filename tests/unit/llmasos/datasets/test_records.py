"""Records with fields: the same from either format, and one sentence for each thing that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UnreadableData
from llmasos.datasets.records import Example, Wanted, read_examples, survey_examples
from tests.support.records import write_records

WANTED = Wanted((("source", "target"),), "seq2seq")
RECORDS = [
    {"source": "ein Haus", "target": "a house", "patient": "7"},
    {"source": "zwei, drei", "target": "two\nthree", "patient": "8"},
]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_either_format_gives_the_same_examples(tmp_path: Path, form: str) -> None:
    path = write_records(tmp_path / f"a.{form}", RECORDS)
    found = list(read_examples(tmp_path, WANTED, unit_field="patient"))
    assert [one.fields for one in found] == [{"source": r["source"], "target": r["target"]} for r in RECORDS]
    assert [one.unit for one in found] == ["7", "8"]
    assert found[0].place == f"{path}:{1 if form == 'jsonl' else 2}"
    assert found[0].content == '{"source":"ein Haus","target":"a house"}'


def problems(path: Path, content: str, unit_field: str | None = None) -> list[str]:
    path.write_text(content)
    found = survey_examples(path.parent, WANTED, unit_field=unit_field)
    return [one.message.replace(str(path), "FILE") for one in found if isinstance(one, UnreadableData)]


LACKS = "has no field 'target'; task seq2seq reads 'source', 'target'."
TABLE: dict[str, tuple[str, str, str | None, list[str]]] = {
    "a field is absent": ("a.jsonl", '{"source": "x"}\n{"source": "x", "target": "y"}\n', None, [f"FILE:1 {LACKS}"]),
    "a column is absent": ("a.csv", "source,aim\nx,y\nx,y\n", None, [f"FILE:1 {LACKS}"]),
    "a column is there twice": ("a.csv", "source,target,target\nx,y,z\n", None, ["FILE:1 has 2 columns 'target'."]),
    "no JSON": ("a.jsonl", "{\n", None, ["FILE:1 is not a line of JSON."]),
    "a list": ("a.jsonl", "[]\n", None, ["FILE:1 is not a JSON object."]),
    "a comma without quotes": (
        "a.csv", "source,target\nx,y,z\nx\n", None,
        ["FILE:2 has not as many fields as the header.", "FILE:3 has not as many fields as the header."],
    ),
    "semicolons": (
        "a.csv", "source;target\nx;y\n", None,
        ["FILE:1 has a single column: its fields are separated by semicolons, expected commas."],
    ),
    "an open quote": ("a.csv", 'source,target\nx,"y\n', None, ["FILE:2 is not a CSV record."]),
    "no unit": (
        "a.jsonl", '{"source": "x", "target": "y", "id": null}\n', "id",
        ["FILE:1 names no unit: field 'id' is absent or empty."],
    ),
    "no column of units": ("a.csv", "source,target\nx,y\n", "id", ["FILE:1 names no unit: field 'id' is absent or empty."]),
    "no fields at all": (
        "a.txt", "text", None, ["FILE has no fields, and task seq2seq reads 'source', 'target' of each record."]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_is_wrong_is_told_by_file_and_line(tmp_path: Path, name: str) -> None:
    file, content, unit_field, expected = TABLE[name]
    assert problems(tmp_path / file, content, unit_field) == expected


def test_an_odd_encoding_is_read_as_its_mark_says(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("source,target\nü,ß\n".encode("utf-16"))
    assert [one.fields["source"] for one in read_examples(tmp_path, WANTED)] == ["ü"]


def test_a_half_written_last_line_is_told_and_the_lines_before_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"source": "x", "target": "y"}\n{"source": "x", "tar')
    found = list(survey_examples(tmp_path, WANTED))
    assert [type(one).__name__ for one in found[1:]] == ["Example", "UnreadableData"]


def test_no_message_holds_any_text(tmp_path: Path) -> None:
    secret = '{"source": "Jane Roe", "target": 5}'
    (tmp_path / "a.jsonl").write_text(secret)
    (example,) = read_examples(tmp_path, WANTED)
    with pytest.raises(UnreadableData) as caught:
        example.text("target")
    assert caught.value.message == f"{tmp_path}/a.jsonl:1 holds something other than text in field 'target'."


def test_a_word_is_one_in_whatever_form_it_stands() -> None:
    example = Example("a:1", {"a": " spam ", "b": 1, "c": "1", "d": 1.0, "e": True})
    assert [example.word(name) for name in "abcd"] == ["spam", "1", "1", "1"]
    with pytest.raises(UnreadableData, match=r"a:1 holds something other than text or a number in field 'e'"):
        example.word("e")
