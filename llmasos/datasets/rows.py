"""Packed rows on disk: each row is a few sequences of integers, as a task encoded one example.

    magic "LLMOSrow" | version u32 | columns u32 | rows u64 | numbers u64 | int32 … | offsets u64 …        little-endian

Row r's column c is the numbers from offset r × columns + c up to the next one. Numbers are token ids, labels or places. As a
token file (llmasos.datasets.tokens) it is owner-only, read with preadv, and refused where it was cut short.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from common.errors import StorageFailure
from llmasos.atomic import replacing
from llmasos.datasets.packed import PackedFile

MAGIC = b"LLMOSrow"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQ")
_FIX = "Remove it; it is made again from the data."
_NUMBER, _OFFSET = np.dtype("<i4"), np.dtype("<u8")

Row = Sequence[Sequence[int]]
"""One example, encoded: its columns."""
Columns = tuple[NDArray[np.int64], ...]
"""The same as it is read."""


def write_rows(rows: Iterable[Row], path: Path, *, columns: int) -> tuple[int, int]:
    """Write the rows, each of `columns` columns; how many rows and numbers there are.

    Raises:
        StorageFailure: the file cannot be written.
    """
    offsets = array("Q", [0])
    with replacing(path) as file:
        file.write(_HEADER.pack(MAGIC, VERSION, columns, 0, 0))
        for row in rows:
            for column in row:
                file.write(np.asarray(column, dtype=_NUMBER).data)
                offsets.append(offsets[-1] + len(column))
        file.write(np.asarray(offsets, dtype=_OFFSET).data)
        file.seek(0)
        count, numbers = (len(offsets) - 1) // columns, offsets[-1]
        file.write(_HEADER.pack(MAGIC, VERSION, columns, count, numbers))
    return count, numbers


@dataclass(slots=True)
class RowFile(PackedFile):
    """An open row file. Reads are positional, so several threads may share it."""

    path: Path
    columns: int
    count: int
    """Rows in the file."""
    numbers: int
    _file: FileIO = field(repr=False)
    _fix: ClassVar[str] = _FIX

    @classmethod
    def _of(cls, path: Path, file: FileIO, size: int) -> RowFile:
        return cls(path, *_check_header(path, file.read(_HEADER.size), size), file)

    def read(self, index: int) -> Columns:
        """The columns of row `index`, int64.

        Raises:
            IndexError: the file has no such row.
            StorageFailure: it was changed or cut short since it was written.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"row {index} of {self.count}")
        at = _HEADER.size + self.numbers * _NUMBER.itemsize + index * self.columns * _OFFSET.itemsize
        bounds = self._read(at, self.columns + 1, _OFFSET)
        if bounds[-1] > self.numbers or (bounds[1:] < bounds[:-1]).any():
            raise StorageFailure(f"{self.path} is damaged: row {index} lies outside of it.", _FIX)
        first = int(bounds[0])
        numbers = self._read(_HEADER.size + first * _NUMBER.itemsize, int(bounds[-1]) - first, _NUMBER).astype(np.int64)
        inner = [int(bound) - first for bound in bounds]
        return tuple(numbers[start:stop] for start, stop in pairwise(inner))

    def _read(self, at: int, count: int, dtype: np.dtype[np.int32] | np.dtype[np.uint64]) -> NDArray[np.integer]:
        packed = np.empty(count, dtype=dtype)
        self._fill(packed.data.cast("B") if count else memoryview(b""), at)
        return cast("NDArray[np.integer]", packed)


def spread(count: int, taken: int) -> Iterator[int]:
    """`taken` of `count` indices at even distances; all of them where there are fewer."""
    taken = min(taken, count)
    return (number * count // taken for number in range(taken))


def _check_header(path: Path, header: bytes, size: int) -> tuple[int, int, int]:
    if len(header) < _HEADER.size:
        raise StorageFailure(f"{path} has {size} bytes, too few for a row file.", _FIX)
    magic, version, columns, count, numbers = _HEADER.unpack(header)
    if magic != MAGIC:
        raise StorageFailure(f"{path} is not a row file.", _FIX)
    if version != VERSION:
        raise StorageFailure(f"{path} is a row file of version {version}, expected {VERSION}.", _FIX)
    expected = _HEADER.size + numbers * _NUMBER.itemsize + (count * columns + 1) * _OFFSET.itemsize
    if size != expected:
        raise StorageFailure(f"{path} has {size:,} bytes, its header gives {expected:,}: it was cut short.", _FIX)
    return columns, count, numbers
