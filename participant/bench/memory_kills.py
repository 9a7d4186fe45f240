"""Workers that the kernel ends for want of memory: the next one gets smaller micro-batches.

    kills = MemoryKills()
    with kills.watching(Work(run, round_number, 8), on_progress) as seen: …      # raises WorkerKilled: looked into
    kills.limit(run)                                                             # 4, after the second time

That a worker was killed says nothing yet: a person may have done it, and then the round must end with the bits that it would
have had. So only kills count during which the kernel's own count of processes that it ended for want of memory rose (Linux;
elsewhere nothing is concluded), and only where no step was done, for a worker that gets on needs no help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import OutOfMemory, WorkerKilled
from common.logs import get_logger
from participant.bench.worker_protocol import Progress

log = get_logger(__name__)

KILLS_BEFORE = 2
"""So often the kernel ends a worker before the next one gets a smaller micro-batch: what took the memory may pass."""
_VMSTAT = Path("/proc/vmstat")

OnProgress = Callable[[Progress], None]


def kernel_kills(vmstat: Path = _VMSTAT) -> int | None:
    """How many processes this kernel ended for want of memory since it started; None where it does not say.

    Source: Linux, mm/oom_kill.c: `oom_kill` counts those of memory cgroups, too.
    """
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker does; `micro_batch` is the plan's."""

    run: str
    round: int
    micro_batch: int


class MemoryKills:
    """Remembers kills by round and limits by run, as long as this process lives."""

    def __init__(self, count: Callable[[], int | None] = kernel_kills) -> None:
        self._count = count
        self._kills: Counter[tuple[str, int]] = Counter()
        self._limits: dict[str, int] = {}

    def limit(self, run: str) -> int | None:
        """The most sequences at once; None: as the plan says."""
        return self._limits.get(run)

    @contextmanager
    def watching(self, work: Work, on_progress: OnProgress) -> Iterator[OnProgress]:
        """Look at how a worker's work ends; it tells its progress to what this gives.

        Raises:
            OutOfMemory: the kernel ended a worker that took one sequence at a time.
        """
        before, steps = self._count(), 0

        def watched(progress: Progress) -> None:
            nonlocal steps
            steps += progress.activity == "training" and progress.steps_done > 0
            on_progress(progress)

        try:
            yield watched
        except WorkerKilled as err:
            after = self._count()
            by_kernel = before is not None and after is not None and after > before
            if steps:
                del self._kills[work.run, work.round]
            elif by_kernel and self._killed(work):
                raise OutOfMemory(
                    "The kernel ended the worker for want of memory, though it took one sequence at a time."
                ) from err
            raise

    def _killed(self, work: Work) -> bool:
        """Count a kill and draw the conclusion; whether there is nothing smaller."""
        self._kills[work.run, work.round] += 1
        if self._kills[work.run, work.round] < KILLS_BEFORE:
            return False
        size = self._limits.get(work.run, work.micro_batch)
        if size == 1:
            return True
        self._limits[work.run] = size // 2
        log.warning("micro-batch made smaller", extra={"run": work.run, "round": work.round, "micro_batch": size // 2})
        return False
