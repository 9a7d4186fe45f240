"""What encoding lost, kept until the next delta carries it (error feedback): HOME/residuals/RUN/ROUND.f32, the agent's alone.

    round 1 used          1.f32 ─┐
    round 2 abandoned     2.f32  │  nobody has what it encoded: as if it had never been
    round 3 open                 └▶ starts from 1.f32, leaves 3.f32

A round that was rolled back is as one that was abandoned.

A residual is raw float32, little-endian, one number for each of the delta's, and as private as a delta. Kept are the newest one
that counts and those of rounds whose fate is open: either may be the next round's start.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from common.blobs import disk
from common.blobs.ingest import open_plain_file
from common.homes import private_folder, sync_folder
from common.ledger.staleness import contributed, is_awaited
from common.ledger.state import RoundRecord, RunRecord

LOSSLESS = "float32"
"""The codec that keeps every bit: it leaves no residual."""
FLOAT_BYTES = 4
_SUFFIX, _WRITING = ".f32", ".writing"
_SYNC_BYTES = 4 * 1024 * 1024


# --- which one ----------------------------------------------------------------------------------------------------------


def counts(record: RoundRecord, institution: str) -> bool:
    """Whether that institution's delta of that round is in the model: the committed round's statement says `used`."""
    closed = record.closed
    return (
        record.opened.task == "train"
        and not record.rolled_back
        and closed is not None
        and closed.outcome == "committed"
        and any(entry.institution == institution and entry.status == "used" for entry in closed.inputs)
    )


def trained_round(record: RoundRecord, institution: str) -> int:
    """The round from whose base that institution trained what this round took: an earlier one where it came late."""
    return record.contributions[institution].contribution.round


def _fate_is_open(run: RunRecord, institution: str, record: RoundRecord) -> bool:
    """Whether that round, or with a buffer a later one, may still use what was trained from its base."""
    if record.closed is None or is_awaited(run, record.number):
        return True
    found = contributed(run, record.number, institution)
    return found is not None and found[0].closed is None


def starting_round(run: RunRecord, institution: str, number: int) -> int | None:
    """The round whose residual round `number` starts from: the newest earlier one whose delta is in the model; None: zeros."""
    backwards = (record for record in reversed(run.rounds) if record.number < number)
    return next((trained_round(record, institution) for record in backwards if counts(record, institution)), None)


def needed_rounds(run: RunRecord, institution: str) -> frozenset[int]:
    """The rounds whose residuals may still be a start: the newest that counts, and those that are open."""
    settled = (trained_round(record, institution) for record in reversed(run.rounds) if counts(record, institution))
    newest = [*itertools.islice(settled, 1)]
    training = [record for record in run.rounds if record.opened.task == "train"]
    still_open = [record.number for record in training if _fate_is_open(run, institution, record)]
    return frozenset(still_open + newest)


# --- where they lie -----------------------------------------------------------------------------------------------------


class Residuals:
    """The files; used by the agent's thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, run: str, number: int) -> Path:
        """Where the residual of that round is, or would be."""
        return self._folder / run / f"{number}{_SUFFIX}"

    @contextmanager
    def open(self, run: str, number: int, elements: int) -> Iterator[BinaryIO | None]:
        """The residual of so many numbers for reading; None where it is lost: no such file, or another size.

        Raises:
            StorageFailure: it is no regular file, or cannot be opened.
        """
        path = self.path(run, number)
        if not path.exists():
            yield None
            return
        with open_plain_file(path) as fd:
            if os.fstat(fd).st_size != FLOAT_BYTES * elements:
                yield None
                return
            with os.fdopen(fd, "rb", closefd=False) as file:
                yield file

    def replace(self, run: str, number: int) -> Replacement:
        """A new residual of that round, written from its first byte to its last.

        Raises:
            StorageFailure: the disk refuses.
        """
        private_folder(self._folder)
        private_folder(self._folder / run)
        return Replacement(self.path(run, number))

    def keep_only(self, keep: Mapping[str, Collection[int]]) -> None:
        """Delete all but these rounds' of these runs, also what a crash left half written."""
        if not self._folder.is_dir():
            return
        with disk.storage("tidy", self._folder):
            for folder in sorted(self._folder.iterdir()):
                kept = {self.path(folder.name, number) for number in keep.get(folder.name, ())}
                if not kept:
                    shutil.rmtree(folder)
                    continue
                for path in sorted(set(folder.iterdir()) - kept):
                    path.unlink(missing_ok=True)


class Replacement:
    """One file that takes its place when it is whole and durable. Leaving the `with` block without `commit` changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_suffix(_WRITING)
        self._size = self._synced = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with disk.storage("create", self._temporary):
            self._fd = os.open(self._temporary, flags, disk.FILE_MODE)

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            StorageFailure: the disk refuses.
        """
        view = data.cast("B")
        with disk.storage("write", self._temporary):
            disk.write_at(self._fd, view, self._size)
            self._size += len(view)
            if self._size - self._synced >= _SYNC_BYTES:
                disk.start_writing_back(self._fd, self._synced, self._size - self._synced)
                self._synced = self._size

    def commit(self) -> None:
        """Durable under its name on return.

        Raises:
            StorageFailure: the disk refuses.
        """
        with disk.storage("finish", self._path):
            os.fsync(self._fd)
            os.replace(self._temporary, self._path)
            sync_folder(self._path.parent)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._temporary.unlink(missing_ok=True)
