"""Children that never outlive this process.

Three nets, each for another way to end:

- the end of the `with` block: children are stopped by SIGTERM, then by SIGKILL after a bounded time;
- the lifeline: an inherited pipe whose other end this process alone holds. When it closes, daemons started with
  `--lifeline-fd` end themselves, on every system and after kill -9 as well;
- the launcher's prctl: on Linux the kernel sends SIGTERM to the others.

Children get a process group each, so that Ctrl-C reaches this process only, which then stops them in order.

    with Processes() as processes:
        coordinator = processes.start("coordinator", [sys.executable, "-m", "coordinator", "start"], log=log, lifeline=True)
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from common.errors import OperationError
from llmasos.simulation import launcher

STOP_SECONDS = 15.0
"""How long children may take to end in order before they are killed."""
POLL_SECONDS = 0.05
TAIL_BYTES = 2000


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """This environment without LLMASOS_* settings: a simulation's daemons read their own files only."""
    kept = {name: value for name, value in base.items() if not name.startswith("LLMASOS_")}
    return kept | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Child:
    """One process that we started, its log, and its standard output where that was asked for."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self.process.poll()

    @property
    def stdout(self) -> IO[bytes]:
        if self.process.stdout is None:
            raise ValueError(f"{self.name} was started without captured output")
        return self.process.stdout

    def terminate(self) -> None:
        if self.exit_code is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and what it started in its own group. Safe: an unreaped child's group id cannot be another's."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Reap it and release its pipe."""
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def log_tail(self) -> str:
        """The end of its log, for error messages."""
        with self.log.open("rb") as stream:
            stream.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace").strip()


class Processes:
    """Starts children and ends them all when the `with` block is left."""

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self.environment = child_environment(os.environ if environment is None else environment)
        self._children: list[Child] = []
        self._lifeline_read, self._lifeline_write = os.pipe()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(reversed(self._children))
        os.close(self._lifeline_write)
        os.close(self._lifeline_read)

    def start(
        self, name: str, argv: Sequence[str], *, log: Path, lifeline: bool = False, capture: bool = False
    ) -> Child:
        """Start a command; its output is appended to `log`, except standard output where `capture` is set.

        Call it from a thread that lives as long as the process: the kernel's notice is tied to the calling thread.
        """
        extra = ["--lifeline-fd", str(self._lifeline_read)] if lifeline else []
        launch = [sys.executable, "-I", launcher.__file__, str(os.getpid())]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [*launch, *argv, *extra],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if capture else stream,
                stderr=stream,
                env=self.environment,
                pass_fds=(self._lifeline_read,) if lifeline else (),
                process_group=0,
            )
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def run(self, name: str, argv: Sequence[str], *, log: Path, seconds: float = 120.0) -> str:
        """Run a command to its end; its standard output.

        Raises:
            OperationError: it failed, with the end of what it wrote, or took longer than `seconds`.
        """
        child = self.start(name, argv, log=log, capture=True)
        try:
            output, _ = child.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise OperationError(f"{name} took longer than {seconds:.0f} s.", f"Look at {log}.") from error
        self._forget(child)
        if child.exit_code != 0:
            raise failed(child)
        return output.decode(errors="replace")

    def stop(self, children: Iterable[Child], *, seconds: float = STOP_SECONDS) -> None:
        """End these children: SIGTERM to all, then SIGKILL to those still there after `seconds`, or at a second Ctrl-C."""
        stopping = list(children)
        for child in stopping:
            child.terminate()
        try:
            deadline = time.monotonic() + seconds
            while any(child.exit_code is None for child in stopping) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            for child in stopping:
                child.kill()
                child.close()
                self._forget(child)

    def _forget(self, child: Child) -> None:
        if child in self._children:
            self._children.remove(child)


def failed(child: Child) -> OperationError:
    """What to tell of a child that ended with a failure."""
    code = child.exit_code
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    tail = child.log_tail() or "(it wrote nothing)"
    return OperationError(f"{child.name} {how}. The end of its log:\n{tail}\n", f"The whole log: {child.log}.")


class Lines:
    """Complete lines of several children's captured output, as they come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._partial: dict[Child, bytes] = {}

    def add(self, child: Child) -> None:
        self._selector.register(child.stdout, selectors.EVENT_READ, child)
        self._partial[child] = b""

    @property
    def open(self) -> frozenset[Child]:
        """Children whose output has not ended yet."""
        return frozenset(self._partial)

    def wait(self, seconds: float) -> list[tuple[Child, bytes]]:
        """New lines, without their ends; an empty list if none came within `seconds`."""
        found: list[tuple[Child, bytes]] = []
        for key, _ in self._selector.select(seconds):
            child: Child = key.data
            data = os.read(key.fd, 1 << 20)
            *whole, rest = (self._partial[child] + data).split(b"\n")
            self._partial[child] = rest
            if not data:
                whole = [rest] if rest else []
                self._selector.unregister(child.stdout)
                del self._partial[child]
            found.extend((child, line) for line in whole if line.strip())
        return found

    def close(self) -> None:
        self._selector.close()
