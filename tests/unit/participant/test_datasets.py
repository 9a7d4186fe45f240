"""Data sets are small files; what they name is looked at from outside only."""

from __future__ import annotations

import os
import stat
from decimal import Decimal
from pathlib import Path

import pytest

from common.errors import (
    AlreadyInitialised,
    InvalidConfiguration,
    InvalidName,
    LLMasOSError,
    StorageFailure,
    TooLittleData,
    UnknownObject,
    UnreadableData,
    UsageError,
)
from common.plan.tasks import CausalLM, MaskedLM, Mixture, Part, Seq2Seq
from participant.config import HomeLayout
from participant.datasets import (
    RECORD_SUFFIXES,
    TEXT_SUFFIXES,
    DataSet,
    add_data_set,
    check_data_set,
    data_set,
    data_sets,
    data_sets_for,
    remove_data_set,
)


@pytest.fixture
def layout(tmp_path: Path) -> HomeLayout:
    (tmp_path / "home").mkdir()
    return HomeLayout(tmp_path / "home")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}\n")
    (folder / "sub" / "b.CSV").write_text("text\n")
    return folder


def test_what_is_added_is_found_listed_and_forgotten(layout: HomeLayout, notes: Path) -> None:
    data = DataSet(name="notes", folder=notes, purpose="research: \"x\" # 'y'", unit_field="patient_id")
    path = add_data_set(layout, data)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    add_data_set(layout, DataSet(name="a", folder=notes / "sub"))
    assert data_set(layout, "notes") == data
    assert [each.name for each in data_sets(layout)] == ["a", "notes"]
    assert remove_data_set(layout, "notes") == data
    assert [each.name for each in data_sets(layout)] == ["a"]
    assert (notes / "a.jsonl").exists()


def test_a_task_takes_what_is_for_it_or_for_every_task() -> None:
    folder = Path("/srv")
    pairs, notes = DataSet(name="pairs", folder=folder, tasks=("seq2seq",)), DataSet(name="notes", folder=folder)
    german = DataSet(name="german", folder=folder, tasks=("german", "causal-lm"))
    parts = (Part(weight=Decimal(1), task=Seq2Seq(), name="german"), Part(weight=Decimal(1), task=Seq2Seq(prefix="f ")))
    for task, names in (
        (CausalLM(), ["notes", "german"]),
        (Seq2Seq(), ["pairs", "notes"]),
        (Mixture(tasks=parts), ["pairs", "notes", "german"]),
        (MaskedLM(), ["notes"]),
    ):
        assert [each.name for each in data_sets_for(task, (pairs, notes, german))] == names


def test_data_for_other_tasks_alone_are_told_with_what_they_are_for() -> None:
    pairs = DataSet(name="pairs", folder=Path("/srv"), tasks=("seq2seq",))
    with pytest.raises(TooLittleData, match=r"is for the plan's task \(masked-lm\): pairs is for seq2seq\."):
        data_sets_for(MaskedLM(), (pairs,))
    with pytest.raises(TooLittleData, match=r"^No data set is named here\."):
        data_sets_for(MaskedLM(), ())


def test_a_name_is_taken_unknown_or_no_name(layout: HomeLayout, notes: Path) -> None:
    add_data_set(layout, DataSet(name="notes", folder=notes))
    with pytest.raises(AlreadyInitialised, match=r"'notes' exists already, in .*data/notes.yaml"):
        add_data_set(layout, DataSet(name="notes", folder=notes))
    for act in (data_set, remove_data_set):
        with pytest.raises(UnknownObject, match="No data set is named 'other'; known: notes"):
            act(layout, "other")
        with pytest.raises(InvalidName):
            act(layout, "../notes")


def test_a_broken_file_is_named_by_line(layout: HomeLayout, notes: Path) -> None:
    path = add_data_set(layout, DataSet(name="notes", folder=notes))
    path.write_text(path.read_text() + "unit: patient\n")
    with pytest.raises(InvalidConfiguration, match=r"notes\.yaml:5: unit"):
        data_sets(layout)


def test_contents_are_counted_as_the_worker_will_find_them(layout: HomeLayout, notes: Path, tmp_path: Path) -> None:
    (notes / ".hidden.txt").write_text("x")
    (notes / ".git").mkdir()
    (notes / ".git" / "a.txt").write_text("x")
    (notes / "image.png").write_bytes(b"x")
    (tmp_path / "outside.txt").write_text("x")
    (notes / "link.txt").symlink_to(tmp_path / "outside.txt")
    (notes / "gone.txt").symlink_to(notes / "nothing")
    (notes / "inside.jsonl").symlink_to(notes / "a.jsonl")
    os.mkfifo(notes / "pipe.txt")
    contents = check_data_set(layout, DataSet(name="n", folder=notes, unit_field="patient_id"))
    assert (str(contents), contents.bytes) == ("1 .csv, 2 .jsonl", 11)


def test_the_formats_are_those_that_are_read() -> None:
    from llmasos.datasets.formats import READERS, read_whole

    assert set(READERS) == TEXT_SUFFIXES
    assert {suffix for suffix, reader in READERS.items() if reader is not read_whole} == RECORD_SUFFIXES


REFUSED: list[tuple[str, dict[str, str], type[LLMasOSError], str]] = [
    ("absent", {}, UsageError, "absent is not a folder that can be opened"),
    ("notes/a.jsonl", {}, UsageError, "is not a folder that can be opened"),
    ("empty", {}, TooLittleData, r"empty holds no \.csv, \.jsonl, \.md, \.py, \.txt file"),
    (".", {}, UsageError, "hold each other"),
    ("home/inside", {}, UsageError, "hold each other"),
    ("taken/sub", {}, UsageError, r"taken/sub is in data set 'taken' already \(.*/taken\)"),
    ("notes", {"unit_field": "text"}, UsageError, "Field 'text' is named as text and as unit"),
    ("mixed", {"unit_field": "patient_id"}, UnreadableData, r"a\.txt has no fields.*'patient_id' \(2 such files\)"),
]


@pytest.mark.parametrize(("folder", "fields", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_can_be_no_data_set_is_refused(
    layout: HomeLayout,
    notes: Path,
    tmp_path: Path,
    folder: str,
    fields: dict[str, str],
    error: type[LLMasOSError],
    message: str,
) -> None:
    for name in ("empty", "home/inside", "taken/sub", "mixed"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a.txt", "b.md", "c.jsonl"):
        (tmp_path / "mixed" / name).write_text("x")
    add_data_set(layout, DataSet(name="taken", folder=tmp_path / "taken"))
    with pytest.raises(error, match=message):
        check_data_set(layout, DataSet(name="new", folder=tmp_path / folder, **fields))  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(layout: HomeLayout, notes: Path) -> None:
    (notes / "a.jsonl").chmod(0)
    with pytest.raises(StorageFailure, match=r"a\.jsonl cannot be read: permission denied"):
        check_data_set(layout, DataSet(name="n", folder=notes))
