"""The real worker, save that preparation fails the way libraries do: error, cause, stdout, stderr and log quote the text.

    worker: {command: [python, -P, tests/support/quoting_worker.py]}        in participant.yaml

The second preparation of a process ends it in the middle, by an exception in a thread and an exit code.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import NoReturn

from participant.bench.worker_protocol import Prepare
from participant.worker import __main__ as program
from participant.worker import session

COMMAND = (sys.executable, "-P", str(Path(__file__).resolve()))
EXIT_CODE = 70


class QuotingLibrary:
    """Fails on the first file of the first data set, and says so as loudly as it can."""

    def __init__(self) -> None:
        self._calls = 0

    def prepare(self, request: Prepare) -> NoReturn:
        self._calls += 1
        text = next(path for path in sorted(Path(request.data[0].folder).rglob("*")) if path.is_file()).read_text()
        print(text, flush=True)
        sys.stderr.write(text)
        logging.getLogger("library").error("cannot parse %s", text)
        if self._calls > 1:
            self._end(text)
        try:
            raise KeyError(text)
        except KeyError as err:
            raise ValueError(f"cannot parse {text}") from err

    def _end(self, text: str) -> NoReturn:
        def fail() -> None:
            raise RuntimeError(text)

        thread = threading.Thread(target=fail, name=text[:20])
        thread.start()
        thread.join()
        os._exit(EXIT_CODE)


if __name__ == "__main__":
    vars(session)["prepare_job"] = QuotingLibrary().prepare
    code = program.main()
    sys.stdout.flush()
    os._exit(code)
