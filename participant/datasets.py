"""The institution's data sets: one small file each, HOME/data/NAME.yaml. What is named here is read by the worker alone.

The agent and its commands see names, sizes and endings of files, never what stands in them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from common.config import load_yaml
from common.errors import AlreadyInitialised, StorageFailure, TooLittleData, UnknownObject, UnreadableData, UsageError
from common.homes import atomic_write, private_folder, storage_failure
from common.names import Name, check_name
from common.plan.tasks import TaskSection
from participant.bench.worker_protocol import DataSource
from participant.config import HomeLayout, Section

RECORD_SUFFIXES = frozenset({".csv", ".jsonl"})
"""Files of records with fields."""
TEXT_SUFFIXES = frozenset({".txt", ".md", ".py"}) | RECORD_SUFFIXES


class DataSet(Section):
    """One folder of text, and what it may be used for."""

    apiVersion: Literal["llmasos/v1"] = "llmasos/v1"  # noqa: N815  the field's name in declarative files
    name: Name = "default"
    folder: Path
    purpose: Annotated[str, Field(max_length=200, description="What it may be used for, in words; never leaves.")] = ""
    unit_field: Annotated[
        str | None, Field(description="Field of .jsonl and .csv records that names the unit, such as patient_id.")
    ] = None
    text_column: Annotated[str | None, Field(description="Field of .jsonl and .csv records that holds the text.")] = (
        None
    )
    tasks: Annotated[
        tuple[Name, ...],
        Field(description="Tasks that it is for, by type or by the name in a plan's mixture; none: every one."),
    ] = ()

    def source(self) -> DataSource:
        """What the worker is told."""
        return DataSource(
            name=self.name,
            folder=str(self.folder),
            text_column=self.text_column,
            unit_field=self.unit_field,
            tasks=self.tasks,
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """Files of a folder that the worker will read, by ending; nothing of them was opened."""

    files: dict[str, int]
    bytes: int

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(self.files.items()))


def data_sets(layout: HomeLayout) -> tuple[DataSet, ...]:
    """All data sets, by ascending name.

    Raises:
        InvalidConfiguration: a file is not one; the message names file and line.
    """
    return tuple(load_yaml(path, DataSet) for path in sorted(layout.data.glob("*.yaml")))


def data_sets_for(task: TaskSection, found: Iterable[DataSet]) -> tuple[DataSet, ...]:
    """Those that a plan's task may learn from.

    Raises:
        TooLittleData: there is none; says what the others are for.
    """
    named = tuple(found)
    chosen = tuple(each for each in named if task.takes(each.tasks))
    if chosen:
        return chosen
    if not named:
        raise TooLittleData("No data set is named here.", "Add one: llmasos-participant data add NAME DIR.")
    others = "; ".join(f"{each.name} is for {', '.join(each.tasks)}" for each in named)
    wanted = ", ".join(sorted(task.names))
    raise TooLittleData(
        f"No data set here is for the plan's task ({wanted}): {others}.",
        "Add one with --task, or without it for every task: llmasos-participant data add NAME DIR.",
    )


def file_stamps(layout: HomeLayout) -> tuple[object, ...]:
    """Name, inode, size and time of each data set's file: another value whenever one was replaced, as commands replace them."""
    found = []
    for path in sorted(layout.data.glob("*.yaml")):
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def data_set(layout: HomeLayout, name: str) -> DataSet:
    """
    Raises:
        UnknownObject: there is none of that name.
    """
    path = _file(layout, name)
    if not path.is_file():
        known = ", ".join(each.name for each in data_sets(layout)) or "none yet"
        raise UnknownObject(f"No data set is named {name!r}; known: {known}.", "See: llmasos-participant data list.")
    return load_yaml(path, DataSet)


def add_data_set(layout: HomeLayout, data: DataSet) -> Path:
    """Write its file; the file's path.

    Raises:
        AlreadyInitialised: the name is taken.
    """
    path = private_folder(layout.data) / f"{data.name}.yaml"
    if path.exists():
        raise AlreadyInitialised(
            f"A data set {data.name!r} exists already, in {path}.", "Choose another name, or edit that file."
        )
    said = data.model_dump(mode="json", exclude_none=True, exclude=None if data.tasks else {"tasks"})
    atomic_write(path, yaml.safe_dump(said, sort_keys=False).encode())
    return path


def remove_data_set(layout: HomeLayout, name: str) -> DataSet:
    """Forget a data set; the institution's folder stays as it is.

    Raises:
        UnknownObject: there is none of that name.
    """
    removed = data_set(layout, name)
    try:
        _file(layout, name).unlink()
    except OSError as err:
        raise storage_failure(_file(layout, name), err) from err
    return removed


def check_data_set(layout: HomeLayout, data: DataSet) -> Contents:
    """What the folder holds, if it can be this data set.

    Raises:
        UsageError: it is no folder, holds this home, or stands in another data set already; text and unit are one field.
        TooLittleData: it holds no file that is read.
        UnreadableData: a unit field is named, and files without fields are there.
        StorageFailure: a folder or file cannot be read.
    """
    _check_place(layout, data)
    if data.unit_field is not None and data.unit_field == (data.text_column or "text"):
        raise UsageError(
            f"Field {data.unit_field!r} is named as text and as unit.",
            "Name the field that says whose text it is with --unit-field, the text with --text-column.",
        )
    found: Counter[str] = Counter()
    size = 0
    without_fields: list[Path] = []
    for path, facts in _readable_files(data.folder):
        found[path.suffix.lower()] += 1
        size += facts.st_size
        if path.suffix.lower() not in RECORD_SUFFIXES:
            without_fields.append(path)
    if not found:
        raise TooLittleData(f"{data.folder} holds no {', '.join(sorted(TEXT_SUFFIXES))} file.")
    if data.unit_field is not None and without_fields:
        raise UnreadableData(
            f"{min(without_fields)} has no fields, so it names no unit in field {data.unit_field!r} "
            f"({len(without_fields):,} such files).",
            "Name a folder of .jsonl and .csv files with --unit-field; other files belong into a data set of their own.",
        )
    return Contents(dict(found), size)


def _check_place(layout: HomeLayout, data: DataSet) -> None:
    folder = data.folder
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder that can be opened.", "Name the folder that holds the text.")
    home = layout.home.resolve()
    if home.is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(home):
        raise UsageError(
            f"{folder} and this participant's home {home} hold each other.",
            "Keep text and home apart: keys, token files and logs are no text to train on.",
        )
    for other in data_sets(layout):
        if _overlap(folder.resolve(), other.folder.resolve()) and other.name != data.name:
            raise UsageError(
                f"{folder} is in data set {other.name!r} already ({other.folder}).",
                "A text that is in two data sets would be trained on twice; name another folder.",
            )


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _readable_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """As the worker finds them: without hidden ones, and without links that lead out of the folder."""

    def fail(err: OSError) -> None:
        raise storage_failure(Path(err.filename or folder), err) from err

    root = folder.resolve()
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith(".") or path.suffix.lower() not in TEXT_SUFFIXES:
                continue
            try:
                facts = path.stat()
                inside = path.resolve().is_relative_to(root)
            except (OSError, RuntimeError):
                continue  # a link to nothing or to itself
            if not inside or not stat.S_ISREG(facts.st_mode):
                continue
            if not os.access(path, os.R_OK):
                raise StorageFailure(
                    f"{path} cannot be read: permission denied.", "Let this user read the whole folder."
                )
            yield path, facts


def _file(layout: HomeLayout, name: str) -> Path:
    return layout.data / f"{check_name(name)}.yaml"
