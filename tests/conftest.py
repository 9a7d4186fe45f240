"""What all tests share: property tests that take the same examples every time, however busy the machine is; logging that a test
configured is as it was before when the next one begins; and the signals that a shell, or nohup, has ignored.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from common.logs import PACKAGES

settings.register_profile("llmasos", deadline=None, derandomize=True, database=None)
settings.load_profile("llmasos")

for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that a test runs in this process configures logging for a process of its own."""
    loggers = [logging.getLogger(), *map(logging.getLogger, PACKAGES)]
    before, levels = set(loggers[0].handlers), [logger.level for logger in loggers]
    yield
    for handler in [each for each in loggers[0].handlers if each not in before and each.get_name() == "llmasos"]:
        loggers[0].removeHandler(handler)
        handler.close()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
