"""Workers that the kernel ended for want of memory: the second time the next gets half the micro-batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import OutOfMemory, WorkerFailed, WorkerKilled
from participant.bench.memory_kills import MemoryKills, Work, kernel_kills
from participant.bench.worker_protocol import Progress

WORK = Work("tiny-abc123", 3, 8)
TRAINING = Progress(round=3, activity="training", steps_done=1, steps_total=6)
EVALUATING = Progress(round=3, activity="evaluating")


class Kernel:
    """Counts what it kills."""

    def __init__(self) -> None:
        self.count: int | None = 5
        self.kills = MemoryKills(lambda: self.count)
        self.heard: list[Progress] = []

    def work(self, *progress: Progress, by_kernel: bool = True, work: Work = WORK) -> None:
        """A worker that says so much and is ended."""
        with self.kills.watching(work, self.heard.append) as watched:
            for each in progress:
                watched(each)
            if by_kernel and self.count is not None:
                self.count += 1
            raise WorkerKilled("The worker was ended by SIGKILL in the middle of its work.")

    def killed(self, times: int, *progress: Progress, by_kernel: bool = True, work: Work = WORK) -> int | None:
        for _ in range(times):
            with pytest.raises(WorkerKilled):
                self.work(*progress, by_kernel=by_kernel, work=work)
        return self.kills.limit(work.run)


def test_the_second_kill_before_a_step_halves_the_micro_batch_and_so_does_each_further_one() -> None:
    kernel = Kernel()
    assert [kernel.killed(1, EVALUATING) for _ in range(4)] == [None, 4, 2, 1]
    assert kernel.heard == [EVALUATING] * 4
    with pytest.raises(OutOfMemory, match=r"The kernel ended the worker .* though it took one sequence at a time"):
        kernel.work()


def test_a_person_who_kills_workers_changes_no_bit() -> None:
    assert Kernel().killed(20, by_kernel=False) is None


def test_where_the_kernel_does_not_count_nothing_is_concluded() -> None:
    kernel = Kernel()
    kernel.count = None
    assert kernel.killed(20) is None


def test_a_worker_that_gets_on_keeps_its_micro_batch() -> None:
    kernel = Kernel()
    assert [kernel.killed(1), kernel.killed(1, TRAINING), kernel.killed(1)] == [None, None, None]
    assert kernel.killed(1) == 4


def test_a_limit_holds_for_the_runs_later_rounds_and_no_other_run() -> None:
    kernel = Kernel()
    assert kernel.killed(2) == 4
    later = Work("tiny-abc123", 4, 8)
    assert [kernel.killed(1, work=later), kernel.killed(1, work=later)] == [4, 2]
    assert kernel.killed(1, work=Work("other", 1, 8)) is None


def test_other_ends_of_work_count_nothing() -> None:
    kernel = Kernel()
    for _ in range(3):
        with pytest.raises(WorkerFailed, match="code 1"), kernel.kills.watching(WORK, kernel.heard.append):
            raise WorkerFailed("The worker ended with code 1.")
    assert kernel.kills.limit(WORK.run) is None


def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("pgfault 12\noom_kill 7\nnuma_hit 3\n")
    assert kernel_kills(vmstat) == 7
    vmstat.write_text("pgfault 12\n")
    assert kernel_kills(vmstat) is None
    assert kernel_kills(tmp_path / "absent") is None
