"""Reports of local work: what is told, what is kept back, and what ends a round's work."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from common.errors import CoordinatorUnreachable
from common.wire.messages import ActivityReport, TransferProgress
from participant import reporter as module
from participant.reporter import RoundReporter, report_size


class Listener:
    """A session that only takes reports; `answer` says whether the round is open, or raises."""

    def __init__(self, answer: Callable[[], bool] = lambda: True) -> None:
        self.heard: list[ActivityReport] = []
        self.hears = threading.Semaphore(0)
        self._answer = answer

    def report(self, report: ActivityReport) -> bool:
        self.heard.append(report)
        self.hears.release()
        return self._answer()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.005)


def reporting(listener: Listener, *, shows_loss: bool = False) -> RoundReporter:
    return RoundReporter(listener, "tiny-0a1b2c", 3, shows_loss=shows_loss)  # type: ignore[arg-type]


def test_a_round_is_reported_at_once_and_again_and_again() -> None:
    listener = Listener()
    with reporting(listener):
        for _ in range(3):
            assert listener.hears.acquire(timeout=30)
    assert listener.heard[0] == ActivityReport("tiny-0a1b2c", 3, "fetching")


def test_progress_and_bytes_add_up_to_one_report() -> None:
    reporter = reporting(Listener())
    reporter.activity("fetching")
    reporter.fetched(300)
    reporter.fetched(12)
    reporter.progress("training", 2, 10, 640, 5)
    reporter.sent(7)
    assert reporter.report == ActivityReport("tiny-0a1b2c", 3, "training", 2, 10, 640, 312, 7, None)


def test_a_transfer_is_told_until_the_next_part_of_the_round() -> None:
    shown: list[TransferProgress | None] = []
    listener, moving = Listener(), TransferProgress(3, 12, 2)
    reporter = RoundReporter(listener, "tiny-0a1b2c", 3, shows_loss=False, show=shown.append)  # type: ignore[arg-type]
    reporter.transferring(moving)
    with reporter:
        assert listener.hears.acquire(timeout=30)
    assert (listener.heard[0].transfer, shown[0], shown[-1]) == (moving, moving, None)
    reporter.activity("training")
    assert reporter.report.transfer is None


def test_a_loss_is_told_only_where_the_plan_shows_it() -> None:
    for shows, told in ((True, 5), (False, None)):
        reporter = reporting(Listener(), shows_loss=shows)
        reporter.progress("training", 2, 10, 640, 5)
        assert reporter.report.loss_fixed == told


def test_a_round_that_takes_no_more_is_over() -> None:
    with reporting(Listener(lambda: False)) as reporter:
        assert reporter.over.wait(30)


def test_a_lost_report_ends_nothing() -> None:
    def unreachable() -> bool:
        raise CoordinatorUnreachable("No answer.")

    listener = Listener(unreachable)
    with reporting(listener) as reporter:
        for _ in range(3):
            assert listener.hears.acquire(timeout=30)
        assert not reporter.over.is_set()


def test_after_the_block_nothing_is_reported() -> None:
    listener = Listener()
    with reporting(listener) as reporter:
        assert listener.hears.acquire(timeout=30)
    heard = len(listener.heard)
    assert not [thread for thread in threading.enumerate() if thread.name == "reporter"]
    reporter.cancel()
    assert reporter.over.is_set()
    assert len(listener.heard) == heard


def test_what_was_told_is_counted() -> None:
    listener = Listener()
    with reporting(listener) as reporter:
        assert listener.hears.acquire(timeout=30)
    assert reporter.bytes_told == sum(report_size(report) for report in listener.heard) > 0
