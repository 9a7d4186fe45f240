"""What `data check` is told: counts, and what is wrong by file and line, without any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UsageError
from participant.bench.worker_link import MAX_LINE_BYTES
from participant.bench.worker_protocol import DataSource, Inspect, Inspected, encode
from participant.worker.inspection import PROBLEMS_TOLD, inspect_data
from tests.support.texts import make_institutions

SECRET = "Mrs Miller"


def inspected(folder: Path, unit_field: str | None = "patient_id", **fields: Any) -> Inspected:
    source = DataSource(name="notes", folder=str(folder), unit_field=unit_field)
    return inspect_data(Inspect(data=source, **fields))


def write(path: Path, *records: object) -> None:
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records))


def test_everything_is_counted_and_nothing_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *({"text": "four", "patient_id": number % 20} for number in range(100)))
    (tmp_path / "b.csv").write_text("patient_id,text\n7,seven 7\n20,\n")
    assert inspected(tmp_path) == Inspected(files=2, documents=101, characters=407, units=20, held_out_units=2)
    assert inspected(tmp_path, held_out_fraction="0.001").held_out_units == 1
    assert inspected(tmp_path, held_out_fraction="0.999").held_out_units == 19
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.csv"]


def test_documents_are_units_where_no_field_is_named(tmp_path: Path) -> None:
    folder = make_institutions(tmp_path, count=1)["clinic"]
    found = inspected(folder, None)
    assert (found.files, found.documents, found.units, found.problems) == (8, 8, 8, ())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.txt").write_text("a text\nof two lines")
    assert (inspected(tmp_path / "one", None).units, inspected(tmp_path / "one", None).problems_found) == (1, 0)


def test_problems_are_told_by_file_and_line_and_not_by_text(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"text": SECRET}, {"text": "y", "patient_id": 1}, f'{{"text": "{SECRET}"')
    (tmp_path / "b.csv").write_text(f"{SECRET},patient_id\nx,1\n")
    found = inspected(tmp_path)
    assert (found.files, found.documents, found.units, found.records_without_unit) == (2, 2, 1, 1)
    assert found.problems == (
        f"{tmp_path}/a.jsonl:1 names no unit: field 'patient_id' is absent or empty.",
        f"{tmp_path}/a.jsonl:3 is not a line of JSON.",
        f"{tmp_path}/b.csv:1 has no column 'text'.",
    )
    assert found.problems_found == 3


def test_a_single_unit_and_an_empty_folder_are_problems(tmp_path: Path) -> None:
    assert inspected(tmp_path).problems == (f"{tmp_path} holds no text.",)
    write(tmp_path / "a.jsonl", {"text": "x", "patient_id": 1}, {"text": "y", "patient_id": 1})
    assert inspected(tmp_path).problems[0].startswith(f"{tmp_path} holds a single unit (2 documents), at least 2")


def test_however_many_problems_there_are_they_fit_one_message(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(12):
        folder = folder / ("\u4e2d" * 80)
    folder.mkdir(parents=True)
    write(folder / "a.jsonl", *({"text": "x"} for _ in range(1000)))
    found = inspected(tmp_path)
    assert (found.records_without_unit, found.problems_found, len(found.problems)) == (1000, 1000, PROBLEMS_TOLD)
    assert found.problems[9].startswith("\u2026\u4e2d")
    assert found.problems[9].endswith("a.jsonl:10 names no unit: field 'patient_id' is absent or empty.")
    assert len(encode(found)) < MAX_LINE_BYTES


def test_what_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent is not a folder of text"):
        inspected(tmp_path / "absent")
    with pytest.raises(UsageError, match="held_out_fraction: expected a decimal number, got 'x'"):
        inspected(tmp_path, held_out_fraction="x")


@pytest.mark.torch
def test_with_a_plan_data_are_read_as_its_task_does(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.support.tasks import a_task_plan

    write(tmp_path / "a.jsonl", {"text": SECRET, "label": "no"}, {"text": SECRET, "label": "maybe"}, {"text": SECRET})
    task = {"type": "sequence-classification", "labels": ["no", "yes"]}
    found = inspected(tmp_path, None, plan=a_task_plan(task))
    assert (found.documents, found.problems_found) == (1, 2)
    assert found.problems[0].endswith("a.jsonl:2 has a label in field 'label' that is none of the plan's 2: no, yes.")
    assert found.problems[1].endswith(
        "a.jsonl:3 has no field 'label'; task sequence-classification reads 'text', 'label'."
    )
    assert SECRET not in found.model_dump_json()
