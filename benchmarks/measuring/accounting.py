"""What processes used, from /proc: processor time, bytes handed to the disk, the highest resident memory.

    before = usage(agent.pid)
    …
    print((usage(agent.pid) - before).seconds)

Linux only; a process must still be there, or its last reading is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from common.errors import OperationError

MEGABYTE = 1_000_000
GIGABYTE = 1e9
PROC = Path("/proc")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, or of several together, since they began; threads included, children not."""

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    written_bytes: float = 0.0
    """Pages made dirty in files, less those that were dropped before they reached the disk."""

    @property
    def seconds(self) -> float:
        return self.user_seconds + self.system_seconds

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.user_seconds + other.user_seconds,
            self.system_seconds + other.system_seconds,
            self.written_bytes + other.written_bytes,
        )

    def __mul__(self, factor: float) -> Usage:
        return Usage(self.user_seconds * factor, self.system_seconds * factor, self.written_bytes * factor)

    def __sub__(self, other: Usage) -> Usage:
        return self + other * -1.0


def usage(pid: int) -> Usage:
    """
    Raises:
        OperationError: no such process, or no /proc.
    """
    try:
        # The command's name stands in brackets and may hold anything; what counts begins behind the last bracket.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        io = dict(line.split(": ") for line in (PROC / str(pid) / "io").read_text().splitlines())
    except OSError as err:
        raise OperationError(
            f"/proc does not say what process {pid} used: {err}.",
            "This benchmark needs Linux, and processes that live.",
        ) from err
    user, system = (int(ticks) / TICKS_A_SECOND for ticks in fields[11:13])
    return Usage(user, system, int(io["write_bytes"]) - int(io["cancelled_write_bytes"]))


def total(usages: Iterable[Usage]) -> Usage:
    return reduce(add, usages, Usage())


def children(pid: int) -> list[int]:
    """Ids of the processes that this one started and that are still there; none where it is gone itself."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in (PROC / str(pid) / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # threads come and go
                found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def peak_mb(pid: int) -> float:
    """The highest resident memory (VmHWM) that a running process had, megabytes."""
    status = (PROC / str(pid) / "status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in status if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / MEGABYTE
