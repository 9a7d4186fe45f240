"""What packed files of numbers have in common: opened unmapped, read by position, closed like files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from common.errors import StorageFailure


class PackedFile(ABC):
    """An open file. Reads are positional, so several threads may share it. A context manager."""

    __slots__ = ()

    path: Path
    _file: FileIO
    _fix: ClassVar[str]
    """What to do about a damaged one."""

    @classmethod
    @abstractmethod
    def _of(cls, path: Path, file: FileIO, size: int) -> Self:
        """From the file's header, at which it stands, and its size.

        Raises:
            StorageFailure: it is not such a file of this version, or shorter or longer than it says.
        """

    @classmethod
    def open(cls, path: Path) -> Self:
        """The file at `path`, open for reading; to be closed, or used in a `with`.

        Raises:
            StorageFailure: the file cannot be read, is not one of this kind and version, or is shorter or longer than it says.
        """
        try:
            file = path.open("rb", buffering=0)
        except OSError as err:
            raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
        try:
            return cls._of(path, file, os.fstat(file.fileno()).st_size)
        except BaseException:
            file.close()
            raise

    def _fill(self, into: memoryview, at: int) -> None:
        """
        Raises:
            StorageFailure: the file was cut short since it was opened.
        """
        while into:
            got = os.preadv(self._file.fileno(), [into], at)
            if not got:
                raise StorageFailure(f"{self.path} was cut short while in use.", self._fix)
            into, at = into[got:], at + got

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
