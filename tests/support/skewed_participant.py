"""A participant whose wall clock is wrong: skewed_participant.py SECONDS ARGUMENTS…

The daemon and its arguments are the documented ones; its clock is ahead of this machine's by so many seconds, or behind. TLS
reads the machine's own clock, and nothing here changes that.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from common.clock import SystemClock
from participant.cli import main


class SkewedClock(SystemClock):
    """Ahead of this machine's by `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


def main_skewed(seconds: float) -> None:
    SystemClock.now = lambda self: datetime.now(UTC) + timedelta(seconds=seconds)  # type: ignore[method-assign]
    main()


if __name__ == "__main__":
    main_skewed(float(sys.argv.pop(1)))
