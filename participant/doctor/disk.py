"""Room for what open runs need, and how long the disk takes to make a write durable."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from participant.config import HomeLayout
from participant.doctor.finding import GB, Finding, State, Subject
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.policy.estimates import disk_bytes

SLOW_SYNC_SECONDS = 0.1
SYNCS = 5
LITTLE_BYTES = 5 * GB
"""Free space below which a warning is due although no run needs any."""


def space(subject: Subject) -> Iterator[Finding]:
    """Free space against what open runs still need."""
    free = shutil.disk_usage(subject.layout.home).free
    needs = _needs(subject)
    missing, runs = sum(needs.values()), ", ".join(needs)
    found = f"{free / GB:.1f} GB free in {subject.layout.home}"
    more = "Free space on that disk, or move the home: it holds models, deltas and snapshots."
    if not needs:
        state: State = "ok" if free >= LITTLE_BYTES else "warn"
        yield Finding("disk space", state, f"{found}; no run needs any now", "" if state == "ok" else more)
        return
    found += f"; {runs} may need {missing / GB:.1f} GB more"
    state = "fail" if free < missing else "warn" if free < 2 * missing else "ok"
    yield Finding("disk space", state, found, "" if state == "ok" else more)


def _needs(subject: Subject) -> dict[str, int]:
    """Bytes that each open run of ours may still take, beyond what lies in its folders."""
    layout = subject.layout
    if not layout.journal.exists():
        return {}
    journal = Journal(layout.journal)
    try:
        runs = Mirror(journal, layout.genesis.read_bytes()).state.runs
    finally:
        journal.close()
    needs = {}
    for run in runs.values():
        answered = run.answers.get(subject.config.institution)
        if run.ended is None and (answered is None or answered.answer.accept):
            needs[run.run] = max(0, disk_bytes(run.statement) - _here(layout, run.run))
    return needs


def _here(layout: HomeLayout, run: str) -> int:
    """Bytes that a run takes in folders of its own."""
    return _size(layout.jobs / run) + _size(layout.residuals / run)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def writes(subject: Subject) -> Iterator[Finding]:
    """How long a durable write takes: what is signed is made durable before it is sent."""
    seconds = []
    with tempfile.TemporaryFile(dir=subject.layout.home) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    typical = statistics.median(seconds)
    if typical <= SLOW_SYNC_SECONDS:
        yield Finding("disk writes", "ok", f"a durable write takes {typical * 1000:.1f} ms")
    else:
        yield Finding(
            "disk writes",
            "warn",
            f"a durable write takes {typical * 1000:.0f} ms, expected at most {SLOW_SYNC_SECONDS * 1000:.0f}",
            "Put the home on a local disk instead of a network share; rounds take seconds longer until then.",
        )
