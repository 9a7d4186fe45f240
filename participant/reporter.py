"""Tells the coordinator how local work goes, from a thread of its own, so that long steps keep their lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from common.errors import LLMasOSError
from common.logs import get_logger
from common.wire.convert import report_to_wire
from common.wire.messages import ActivityName, ActivityReport, TransferProgress
from common.wire.session import Session

log = get_logger(__name__)

FIRST_SECONDS = 0.3
"""A round that is over sooner is not reported on: its contribution says all."""
REPORT_SECONDS = 1.0


class RoundReporter:
    """Reports one round's activity, soon and then every second, while the `with` block lasts.

    `over` is set when the coordinator says that the round takes no more contributions, or by `cancel`: every long step of the
    round watches it.
    """

    def __init__(
        self,
        session: Session,
        run: str,
        number: int,
        *,
        shows_loss: bool,
        show: Callable[[TransferProgress | None], object] = lambda transfer: None,
    ) -> None:
        """
        Args:
            show: told each second how far the transfer is; None: nothing is transferred.
        """
        self._session = session
        self._shows_loss = shows_loss
        self._show = show
        self._lock = threading.Lock()
        self._report = ActivityReport(run=run, round=number, activity="fetching")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._bytes_told = 0
        self.over = threading.Event()

    @property
    def bytes_told(self) -> int:
        """What all reports so far had together, to be booked as what left."""
        return self._bytes_told

    @property
    def report(self) -> ActivityReport:
        """What was last told."""
        with self._lock:
            return self._report

    def activity(self, name: ActivityName) -> None:
        """A new part of the round begins."""
        with self._lock:
            self._report = replace(self._report, activity=name, transfer=None)

    def progress(
        self, name: ActivityName, steps_done: int, steps_total: int, tokens: int, loss_fixed: int | None
    ) -> None:
        """How far the worker is."""
        with self._lock:
            self._report = replace(
                self._report,
                activity=name,
                steps_done=steps_done,
                steps_total=steps_total,
                tokens_done=tokens,
                loss_fixed=loss_fixed if self._shows_loss else None,
            )

    def fetched(self, count: int) -> None:
        with self._lock:
            self._report = replace(self._report, bytes_down=self._report.bytes_down + count)

    def sent(self, count: int) -> None:
        with self._lock:
            self._report = replace(self._report, bytes_up=self._report.bytes_up + count)

    def transferring(self, progress: TransferProgress) -> None:
        """How far the blob is that travels now."""
        with self._lock:
            self._report = replace(self._report, transfer=progress)

    def cancel(self) -> None:
        """The round's work is to end."""
        self.over.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._show(None)

    def _run(self) -> None:
        wait = FIRST_SECONDS
        while not self._ending.wait(wait):
            wait = REPORT_SECONDS
            report = self.report
            self._show(report.transfer)
            try:
                self._bytes_told += report_size(report)
                if not self._session.report(report):
                    self.over.set()
            except LLMasOSError as err:
                # A report is a courtesy: the work goes on, and the lease has room for a few lost ones.
                log.debug("report failed", extra={"code": err.code})


def report_size(report: ActivityReport) -> int:
    """Bytes of a report on the wire."""
    return int(report_to_wire(report).ByteSize())
