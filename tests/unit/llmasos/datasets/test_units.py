"""What belongs to one unit is never divided; what names no unit is split exactly as ever."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TooLittleData, UnreadableData
from llmasos.datasets.text import Document, read_documents, split_documents, survey
from tests.support.texts import make_institutions

SECRET = "Mrs Miller"


def by_patient(folder: Path) -> list[Document]:
    return list(read_documents(folder, unit_field="patient_id"))


def units_of(documents: list[Document]) -> set[str | None]:
    return {document.unit for document in documents}


def numbered(*texts: str) -> list[Document]:
    return [Document(str(number), text) for number, text in enumerate(texts)]


DOCUMENTS = [*numbered(*(f"document {number}" for number in range(40))), Document("40", "document 7")]


@pytest.mark.parametrize(
    ("seed", "fraction", "expected"),
    [
        (0, "0.1", ["5", "6", "9", "11", "17", "26", "36"]),
        (7, "0.1", ["3", "7", "18", "21", "33", "40"]),
        (3, "0.25", ["0", "6", "13", "18", "19", "21", "27", "30"]),
    ],
)
def test_documents_without_units_are_split_as_they_always_were(seed: int, fraction: str, expected: list[str]) -> None:
    _, held_out = split_documents(DOCUMENTS, Decimal(fraction), seed=seed)
    assert [document.name for document in held_out] == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("txt", ["0005.txt", "0006.txt"]),
        ("jsonl", ["records.jsonl:6", "records.jsonl:7"]),
        ("csv", ["records.csv:121", "records.csv:141"]),
    ],
)
def test_files_without_units_are_split_as_they_always_were(tmp_path: Path, form: str, expected: list[str]) -> None:
    folder = make_institutions(tmp_path, count=1, form=form)["clinic"]
    train, held_out = split_documents(read_documents(folder), Decimal("0.3"), seed=7)
    assert [document.name for document in held_out] == expected
    assert len(train) == 6
    text = "\0".join(document.text for document in held_out)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("a13596fa2a73b5a0")


def test_the_document_nearest_to_an_empty_side_goes_there_as_ever() -> None:
    few = [*DOCUMENTS[:3], DOCUMENTS[0]]
    assert [one.name for one in split_documents(few, Decimal("0.0001"), seed=1)[1]] == ["0"]
    assert [one.name for one in split_documents(few, Decimal("0.9999"), seed=1)[1]] == ["0", "1", "0"]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefg"), st.text(min_size=1)), min_size=2, max_size=30),
    st.integers(0, 2**32 - 1),
    st.floats(0.01, 0.99),
)
def test_no_unit_is_on_both_sides(records: list[tuple[str, str]], seed: int, fraction: float) -> None:
    documents = [Document(str(number), text, unit) for number, (unit, text) in enumerate(records)]
    if len(units_of(documents)) < 2:
        return
    train, held_out = split_documents(documents, fraction, seed=seed)
    assert train
    assert held_out
    assert not units_of(train) & units_of(held_out)
    assert sorted((*train, *held_out), key=lambda document: int(document.name)) == documents


def test_a_unit_keeps_its_side_when_its_text_changes_and_others_come() -> None:
    before = [Document(str(number), f"text {number}", f"patient {number % 50}") for number in range(200)]
    after = [Document(f"new {number}", "other", f"patient {number}") for number in range(100)] + before
    held_out, more = (units_of(split_documents(each, 0.2, seed=3)[1]) for each in (before, after))
    assert held_out == more & units_of(before)
    assert 4 <= len(held_out) <= 18


def test_documents_without_a_unit_stand_beside_units() -> None:
    documents = [*numbered("a", "b", "c"), *(Document(f"p{number}", f"text {number}", "1") for number in range(5))]
    train, held_out = split_documents(documents, 0.5, seed=2)
    assert sorted(len([one for one in side if one.unit]) for side in (train, held_out)) == [0, 5]


def test_a_unit_is_one_across_files_and_formats(tmp_path: Path) -> None:
    values: list[object] = [4711, "4711", " 4711 ", 4711.0, "4711.0"]
    lines = [json.dumps({"text": f"note {value!r}", "patient_id": value}) for value in values]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.csv").write_text("text,patient_id\nx,4711\ny, 4711\nz,4711.00\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.csv").write_text("patient_id,text\n0815,other\nM\u00fcller,one\nMu\u0308ller,two\n")
    assert units_of(by_patient(tmp_path)) == {"4711", "0815", "M\u00fcller"}


@pytest.mark.parametrize(
    "record", [{}, {"patient_id": None}, {"patient_id": ""}, {"patient_id": " \t"}, {"patient_id": float("nan")}]
)
def test_a_record_without_its_unit_is_named_not_guessed(tmp_path: Path, record: dict[str, object]) -> None:
    good = json.dumps({"text": "fine", "patient_id": 1})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{json.dumps({'text': SECRET} | record)}\n")
    with pytest.raises(UnreadableData) as caught:
        by_patient(tmp_path)
    assert caught.value.message.endswith("a.jsonl:2 names no unit: field 'patient_id' is absent or empty.")
    assert "may not stand on both sides" in caught.value.fix


@pytest.mark.parametrize("value", [True, [SECRET], {SECRET: 1}])
def test_a_unit_is_text_or_a_number(tmp_path: Path, value: object) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x", "patient_id": value}))
    with pytest.raises(UnreadableData, match=r"a\.jsonl:1 holds something other than text or a number") as caught:
        by_patient(tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"text,{SECRET}\nx,1\n", "a.csv:1 has no column 'patient_id'."),
        ("text,patient_id,patient_id\nx,1,2\n", "a.csv:1 has 2 columns 'patient_id'."),
        (f"text,patient_id\nx,1\n{SECRET}, record 5,2\n", "a.csv:3 has more fields than the header."),
        ("text,patient_id\nx,1\nx,\n", "a.csv:3 names no unit: field 'patient_id' is absent or empty."),
        (f'text,patient_id\nx,1\n"{SECRET},2\ny,3\n', "a.csv:4 is not a CSV record."),
        (f'text,patient_id\nx,1\n"{SECRET}" broke,2\n', "a.csv:3 is not a CSV record."),
    ],
    ids=["no column", "two columns", "an unquoted comma", "empty", "an open quote", "text after a quote"],
)
def test_a_table_that_could_mix_units_up_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UnreadableData) as caught:
        by_patient(tmp_path)
    assert caught.value.message.endswith(message)
    assert SECRET not in str(caught.value)


def test_a_file_without_fields_names_no_unit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnreadableData, match=r"a\.txt has no fields, so it names no unit in field 'patient_id'"):
        by_patient(tmp_path)


def test_a_blank_record_needs_no_unit(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": " "}\n{"text": null}\n{"text": "x", "patient_id": 1}\n')
    assert by_patient(tmp_path) == [Document("a.jsonl:3", "x", "1")]


def test_a_single_unit_is_not_divided() -> None:
    documents = [Document(str(number), "text", "1") for number in range(3)]
    with pytest.raises(
        TooLittleData, match=r"/data/notes holds a single unit \(3 documents\), at least 2 are needed"
    ) as caught:
        split_documents(documents, 0.1, seed=0, source="/data/notes")
    assert "Add text of more units" in caught.value.fix


def test_a_survey_goes_on_behind_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": "y", "patient_id": 1}\n{"text"\n{"text": "unread"}')
    (tmp_path / "b.csv").write_text("text\nx\n")
    (tmp_path / "c.jsonl").write_text('{"text": "z", "patient_id": 2}')
    found = list(survey(tmp_path, unit_field="patient_id"))
    assert [one.name for one in found if isinstance(one, Path)] == ["a.jsonl", "b.csv", "c.jsonl"]
    assert [one.text for one in found if isinstance(one, Document)] == ["x", "y", "z"]
    problems = [one.message.rpartition("/")[2] for one in found if isinstance(one, UnreadableData)]
    assert problems == [
        "a.jsonl:1 names no unit: field 'patient_id' is absent or empty.",
        "a.jsonl:3 is not a line of JSON.",
        "b.csv:1 has no column 'patient_id'.",
    ]
