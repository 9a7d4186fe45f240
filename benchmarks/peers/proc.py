"""Readings of /proc/PID and /proc/meminfo (Linux). Source: proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

MEGABYTE = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
GONE = {"Z", "X"}
"""States of a process that holds nothing any more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of /proc/PID: processor seconds so far, megabytes now, at most, and not backed by files."""

    pid: int
    parent: int
    born: int
    cpu_seconds: float
    resident_mb: float = 0.0
    peak_mb: float = 0.0
    anonymous_mb: float = 0.0


def parse_stat(text: str) -> Sample:
    """A line of /proc/PID/stat; the name in brackets may hold spaces and brackets. Source: proc(5)."""
    pid, _, rest = text.partition(" (")
    fields = rest.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Sample(int(pid), int(fields[1]), int(fields[19]), ticks / TICKS)


def parse_status(text: str) -> dict[str, float]:
    """The memory lines of /proc/PID/status in megabytes; none for a process that is ending."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in {"VmHWM", "VmRSS", "RssAnon"}:
            found[name] = int(value.split()[0]) * 1024 / MEGABYTE
    return found


def read_sample(pid: int) -> Sample | None:
    """None for a process that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return None if text.rpartition(")")[2].split()[0] in GONE else parse_stat(text)


def with_memory(sample: Sample) -> Sample:
    """The same reading with the process's memory; as it is where the process has ended meanwhile."""
    try:
        memory = parse_status(Path(f"/proc/{sample.pid}/status").read_text(errors="replace"))
    except OSError:
        return sample
    now, most, anonymous = (memory.get(name, 0.0) for name in ("VmRSS", "VmHWM", "RssAnon"))
    return replace(sample, resident_mb=now, peak_mb=most, anonymous_mb=anonymous)


def arguments(pid: int) -> list[str]:
    """Its command line; empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def carries(pid: int, variable: str) -> bool:
    """Did it start with this `NAME=value` in its environment? No for a process that is not ours to look into."""
    try:
        return variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def available_mb() -> float | None:
    """Memory that could be used without swapping, megabytes; None where /proc does not say."""
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    line = next(line for line in file.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024 / MEGABYTE
