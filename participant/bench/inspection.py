"""What a worker finds in the data sets: started for that alone, in a folder of its own that is gone afterwards."""

from __future__ import annotations

import queue
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import LLMasOSError
from common.plan.model import Plan
from participant.bench.token_files import CHECK_PREFIX
from participant.bench.worker_link import WorkerLink, WorkerSettings, error_from, worker_ended
from participant.bench.worker_protocol import FromWorker, Inspect, Inspected, WorkerError
from participant.config import HomeLayout, ParticipantConfig
from participant.datasets import DataSet


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in one data set; `error` is set where it could not be read to its end."""

    data: DataSet
    inspected: Inspected | None = None
    error: LLMasOSError | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """The first ones, with file and line, without text."""
        if self.error is not None:
            return (self.error.message,)
        return self.inspected.problems if self.inspected is not None else ()

    @property
    def problems_found(self) -> int:
        return self.inspected.problems_found if self.inspected is not None else len(self.problems)


def inspect_all(
    layout: HomeLayout, config: ParticipantConfig, data_sets: Sequence[DataSet], plan: Plan | None = None
) -> Iterator[Finding]:
    """Read every data set as preparation would for a plan, or as text, by a worker as configured; a finding each, in order.

    Raises:
        WorkerFailed: the worker does not start, or ended.
        MissingExtra: torch and what belongs to it are not installed.
        StorageFailure: its folder cannot be made.
    """
    root = Path(tempfile.mkdtemp(prefix=CHECK_PREFIX, dir=layout.home))
    answers: queue.Queue[FromWorker | int] = queue.Queue()
    try:
        link = WorkerLink(_settings(layout, config, root), on_message=answers.put, on_exit=answers.put)
        link.start()
        try:
            for data in data_sets:
                link.send(Inspect(data=data.source(), plan=plan))
                yield _finding(data, answers)
        finally:
            link.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _finding(data: DataSet, answers: queue.Queue[FromWorker | int]) -> Finding:
    while True:
        match answers.get():
            case Inspected() as inspected:
                return Finding(data, inspected)
            case WorkerError() as message:
                return Finding(data, error=error_from(message))
            case int(code):
                raise worker_ended(code, f"while it read data set {data.name!r}")


def _settings(layout: HomeLayout, config: ParticipantConfig, root: Path) -> WorkerSettings:
    worker = config.worker
    settings = WorkerSettings(
        job_root=root,
        log_path=layout.worker_log,
        threads=worker.threads,
        worker_user=worker.user,
        isolate_network=worker.isolate_network,
    )
    return settings if worker.command is None else replace(settings, command=worker.command)
