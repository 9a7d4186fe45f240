"""Copies of private text in a participant's home: where they lie, and how they are removed.

    HOME/jobs/RUN/tokens/      the institution's text in another alphabet; made again from the text when needed
    HOME/jobs/…                what no run put there: temporary files of the worker, also what a killed one left behind
    HOME/.check-…/             the same, of `data check`
    HOME/alone/                the same, of `gain`
    HOME/residuals/            what deltas lost in encoding: no text, but as private; the next round starts from zeros
    HOME/logs/worker.log*      may quote text, where a library failed on it

Snapshots, deltas and residuals are numbers that were learned from text, no copies of it: they stay until their run ends, and
residuals go with the rest where all is to go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from common.clock import parse_rfc3339
from common.errors import DataInUse, UnknownObject
from common.homes import storage_failure
from participant.config import HomeLayout
from participant.memory.orders import Orders
from participant.status import read_status

CHECK_PREFIX = ".check-"
ALONE = "alone"
_TOKENS, _PLAN = "tokens", "plan.json"


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that is not on disk any more."""

    what: Path
    files: int
    bytes: int


def runs_with_tokens(layout: HomeLayout) -> tuple[str, ...]:
    """Runs of which token files lie here, by ascending name."""
    return tuple(sorted(job.name for job in _jobs(layout) if _token_folders(job)))


def purge(layout: HomeLayout, run: str | None, now: datetime) -> tuple[Removed, ...]:
    """Remove the token files of one run (a unique prefix of its name), or, for None, every copy that lies here.

    Raises:
        UnknownObject: no token files of such a run, or of several.
        DataInUse: a daemon runs whose worker may be reading or writing them.
        StorageFailure: something cannot be removed; what was removed before is gone.
    """
    jobs = {job.name: job for job in _jobs(layout)}
    chosen = [_one(jobs, run)] if run is not None else list(jobs.values())
    targets = [folder for job in chosen for folder in _token_folders(job)]
    if run is None:
        targets += _leftovers(layout, jobs.values())
    if targets:
        _check_unused(layout, [job.name for job in chosen], now)
    removed = [_remove(target) for target in targets]
    if run is None:
        removed += [_empty(log) for log in sorted(layout.logs.glob("worker.log*")) if log.stat().st_size]
    return tuple(removed)


def _jobs(layout: HomeLayout) -> list[Path]:
    """Job folders of runs."""
    return [path for path in _entries(layout.jobs) if (path / _PLAN).is_file()]


def _token_folders(job: Path) -> list[Path]:
    return sorted(path for path in job.rglob(_TOKENS) if path.is_dir() and not path.is_symlink())


def _leftovers(layout: HomeLayout, jobs: Iterable[Path]) -> list[Path]:
    known = set(jobs)
    strangers = [path for path in _entries(layout.jobs) if path not in known]
    kept = [layout.residuals] if layout.residuals.is_dir() else []
    return [*strangers, *sorted(layout.home.glob(CHECK_PREFIX + "*")), *layout.home.glob(ALONE), *kept]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as err:
        raise storage_failure(folder, err) from err


def _one(jobs: dict[str, Path], run: str) -> Path:
    found = [run] if run in jobs else [name for name in jobs if name.startswith(run)]
    if len(found) == 1:
        return jobs[found[0]]
    known = ", ".join(sorted(found or jobs)) or "none"
    what = "several runs begin so" if found else "no such run has a job folder here"
    raise UnknownObject(f"Run {run!r}: {what}; runs here: {known}.", "Name one of them, or all: data purge --all.")


def _check_unused(layout: HomeLayout, runs: list[str], now: datetime) -> None:
    """A daemon's worker reads what it has prepared until the run ends; a daemon that says it is paused has ended it."""
    status = read_status(layout.status)
    if not status["running"]:
        return
    if not _told_to_pause(layout, now):
        names = ", ".join(runs) or "the worker"
        raise DataInUse(f"The daemon (process {status.get('pid')}) works on {names}: its token files are in use.")
    if status.get("activity") != "paused":
        raise DataInUse(
            f"The daemon (process {status.get('pid')}) was told to pause and still says: {status.get('activity')}.",
            "Try again in some seconds, when `llmasos-participant status` says that it is paused.",
        )


def _told_to_pause(layout: HomeLayout, now: datetime) -> bool:
    orders = Orders(layout.journal)
    try:
        pause = orders.get("pause")
    finally:
        orders.close()
    until = pause.payload.get("until") if pause is not None else None
    return pause is not None and (not until or parse_rfc3339(until) > now)


def _remove(path: Path) -> Removed:
    try:
        if path.is_symlink() or not path.is_dir():
            removed = Removed(path, 1, path.lstat().st_size)
            path.unlink()
            return removed
        sizes = [Path(place, name).lstat().st_size for place, _, names in os.walk(path) for name in names]
        shutil.rmtree(path)
    except OSError as err:
        raise storage_failure(path, err) from err
    return Removed(path, len(sizes), sum(sizes))


def _empty(log: Path) -> Removed:
    """Emptied and not removed: a worker that starts meanwhile appends to it."""
    try:
        size = log.stat().st_size
        os.truncate(log, 0)
    except OSError as err:
        raise storage_failure(log, err) from err
    return Removed(log, 1, size)
