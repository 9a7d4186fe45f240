"""Files and folders called train, validation and test are those splits, and nothing else is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.errors import LLMasOSError, TooLittleData
from llmasos.datasets import load_dataset
from llmasos.datasets.named import split_named


def fill(folder: Path, **files: int) -> Path:
    """Files of so many records each; `__` stands for a slash."""
    for name, count in files.items():
        path = folder / f"{name.replace('__', '/')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "".join(json.dumps({"text": f"{name} {i}", "patient": f"{name}{i}"}) + "\n" for i in range(count))
        )
    return folder


def sizes(*arguments: Any, **options: Any) -> list[int]:
    return [len(split) for split in load_dataset(*arguments, **options).values()]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("Training.csv", "train"),
        ("train-00001-of-00003.jsonl", "train"),
        ("dev.txt", "validation"),
        ("valid_1.txt", "validation"),
        ("eval.jsonl", "test"),
        ("training-day.txt", None),
        ("trains.txt", None),
        ("my_train.jsonl", None),
        ("train.py", None),
        ("test_loading.py", None),
    ],
)
def test_a_file_is_a_split_by_the_whole_of_its_name(name: str, split: str | None) -> None:
    assert split_named(Path("/nowhere") / name) == split


def test_files_and_folders_are_the_splits_that_they_are_called(tmp_path: Path) -> None:
    files = fill(tmp_path / "files", **{"train-0": 5, "train-1": 4, "dev": 3, "test": 2})
    (files / "README.md").write_text("What this is.")
    data = load_dataset(files)
    assert [len(data[name]) for name in data] == [9, 3, 2]
    assert {document.content.split()[0] for document in data.validation} == {"dev"}
    assert sizes(fill(tmp_path / "folders", train__a=5, train__b=4, test__a=2)) == [9, 0, 2]


def test_a_share_is_cut_out_of_train_where_the_data_name_no_such_split(tmp_path: Path) -> None:
    folder = fill(tmp_path, train=40, test=5)
    data = load_dataset(folder, validation=0.2)
    assert len(data.train) + len(data.validation) == 40
    assert 2 <= len(data.validation) <= 16
    assert {document.content.split()[0] for document in data.validation} == {"train"}
    assert len(data.test) == 5


def test_without_two_names_a_folder_is_one_text(tmp_path: Path) -> None:
    assert sum(sizes(fill(tmp_path / "one", train=20))) == 20
    assert min(sizes(fill(tmp_path / "two", train=40, bus=40))) > 0
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("train.py", "test.py", "model.py"):
        (programs / name).write_text(f"print('{name}')\n")
    assert sizes(programs, validation=0, test=0) == [3, 0, 0]


def test_files_are_named_by_hand(tmp_path: Path) -> None:
    folder = fill(tmp_path, a=5, b=4, c__d=3, notes=7)
    assert sizes(folder, data_files={"train": ["a.jsonl", "b.jsonl"], "test": folder / "c"}) == [9, 0, 3]
    assert sizes(folder, data_files={"train": "."}) == [19, 0, 0]
    assert min(sizes(folder, data_files={"train": "."}, validation=0.3, test=0.3)) > 0


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"train": 3, "test": 3, "notes": 1},
            {},
            r"names splits, test and train, and holds 1 more .* first notes\.jsonl",
        ),
        ({"train": 3, "test": 3}, {"test": 0.5}, r"test is 0\.5, but the data name their own split test"),
        ({"train": 3, "test": 0}, {}, r"The split test of .* holds no text or records"),
        ({"train": 3, "test": 3}, {"validation": 1.0}, r"validation is 1\.0 and test 0, expected shares from 0"),
        ({"a": 3}, {"data_files": {"test": "a.jsonl"}}, r"data_files names the splits 'test', expected 'train'"),
        (
            {"a": 3},
            {"data_files": {"train": "a.jsonl", "dev": "a.jsonl"}},
            r"data_files names the splits 'train', 'dev'",
        ),
        ({"a": 3}, {"data_files": {"train": "a.jsonl", "test": "a.jsonl"}}, r"data_files names .*a\.jsonl twice"),
        ({"a": 3}, {"data_files": {"train": ".", "test": "a.jsonl"}}, r"data_files names .*a\.jsonl twice"),
        ({"a": 3}, {"data_files": {"train": "b.jsonl"}}, r"b\.jsonl is not a folder of text: it does not exist"),
    ],
)
def test_what_is_not_clear_is_one_sentence(
    tmp_path: Path, files: dict[str, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LLMasOSError, match=message):
        load_dataset(fill(tmp_path, **files), **options)


def test_named_splits_divide_no_unit(tmp_path: Path) -> None:
    fill(tmp_path, train=3)
    (tmp_path / "test.jsonl").write_text('{"text": "other", "patient": "train1"}\n')
    with pytest.raises(
        LLMasOSError, match=r"A unit stands in both train and test of .*; none may be divided"
    ) as raised:
        load_dataset(tmp_path, unit_field="patient")
    assert "train1" not in str(raised.value)
    assert sizes(tmp_path) == [3, 0, 1]


def test_an_empty_named_train_is_not_all_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(TooLittleData, match=r"The split train of .* holds no text or records"):
        load_dataset(fill(tmp_path, train=0, test=3))
