"""A participant that ends by kill -9 while it makes a base model from the one before: crashing_participant.py CHUNK ARGUMENTS…

The daemon and its arguments are the documented ones; the process dies when that chunk of the new model is to be written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from common.reduce import apply
from participant.cli import main


def main_killed_at(chunk: int) -> None:
    plain = apply.apply_deltas

    def dies(job: apply.ApplyJob, write: Callable[[int, memoryview], object], wanted: Callable[[int], bool]) -> None:
        def write_or_die(index: int, content: memoryview) -> None:
            if index == chunk:
                os.kill(os.getpid(), signal.SIGKILL)
            write(index, content)

        plain(job, write_or_die, wanted)

    apply.apply_deltas = dies  # type: ignore[assignment]
    main()


if __name__ == "__main__":
    at = int(sys.argv.pop(1))
    main_killed_at(at)
