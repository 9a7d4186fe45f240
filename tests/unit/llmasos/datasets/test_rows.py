"""Packed rows: what was written comes back, and nothing is read from a damaged file."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from common.errors import StorageFailure
from llmasos.datasets.rows import RowFile, spread, write_rows

ROWS = [[[1, 2, 3], [], [-100]], [[], [70_000], [2]], [[5], [6, 7], [0]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    assert write_rows(ROWS, tmp_path / "a.rows", columns=3) == (3, 10)
    return tmp_path / "a.rows"


def test_rows_come_back_as_they_were_written(path: Path) -> None:
    with RowFile.open(path) as file:
        assert (file.count, file.columns, file.numbers) == (3, 3, 10)
        assert [[column.tolist() for column in file.read(index)] for index in range(3)] == ROWS
        with pytest.raises(IndexError, match="row 3 of 3"):
            file.read(3)


def test_a_file_without_rows_is_one(tmp_path: Path) -> None:
    assert write_rows([], tmp_path / "b.rows", columns=2) == (0, 0)
    with RowFile.open(tmp_path / "b.rows") as file:
        assert file.count == 0


def test_rows_are_for_their_owner_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: os.truncate(path, 10), "has 10 bytes, too few for a row file"),
        (lambda path: os.truncate(path, 60), "has 60 bytes, its header gives 152: it was cut short"),
        (lambda path: path.write_bytes(b"LLMOStok" + path.read_bytes()[8:]), "is not a row file"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:8] + struct.pack("<I", 9) + path.read_bytes()[12:]),
            "version 9",
        ),
    ],
    ids=["header", "cut", "magic", "version"],
)
def test_a_damaged_file_is_refused(path: Path, spoil: object, message: str) -> None:
    spoil(path)  # type: ignore[operator]
    with pytest.raises(StorageFailure, match=message) as caught:
        RowFile.open(path)
    assert caught.value.fix == "Remove it; it is made again from the data."


def test_offsets_that_lead_out_of_the_file_are_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-8:] = struct.pack("<Q", 2**40)
    path.write_bytes(content)
    with RowFile.open(path) as file, pytest.raises(StorageFailure, match="is damaged: row 2 lies outside of it"):
        file.read(2)


def test_rows_cut_short_while_open_are_refused(path: Path) -> None:
    with RowFile.open(path) as file:
        os.truncate(path, 40)
        with pytest.raises(StorageFailure, match="cut short while in use"):
            file.read(0)


def test_what_is_measured_is_spread_evenly() -> None:
    assert list(spread(10, 4)) == [0, 2, 5, 7]
    assert list(spread(3, 9)) == [0, 1, 2]
