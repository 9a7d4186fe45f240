"""A coordinator that ends by kill -9 at a named durable step: crashing_coordinator.py HOME STEP ROUND --lifeline-fd N."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from common.daemon import stop_event
from common.homes import HomeLock
from common.logs import configure
from coordinator.app import CoordinatorApp, load_config
from coordinator.rounds.ports import Step


class KilledAt:
    """Steps that end this process at one of them."""

    def __init__(self, step: Step, round_number: int) -> None:
        self._at = (step, round_number)

    def reached(self, step: Step, run: str, round_number: int) -> None:
        if (step, round_number) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("step", type=Step)
    parser.add_argument("round", type=int)
    parser.add_argument("--lifeline-fd", type=int)
    arguments = parser.parse_args()
    configure(format="text", level="INFO")
    stopping = stop_event(arguments.lifeline_fd)
    with HomeLock(arguments.home):
        app = CoordinatorApp(
            arguments.home, load_config(arguments.home), steps=KilledAt(arguments.step, arguments.round)
        )
        app.start()
        stopping.wait()
        app.stop()


if __name__ == "__main__":
    main()
