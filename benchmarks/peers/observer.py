"""What a system's processes take, read from /proc while they run; and the end of them all.

A system's processes are those that were started here, their descendants, and every process that carries the observer's mark
in its environment, so that daemons which detach themselves are counted, and ended, too. Linux only.

    with Observer(roles, Limits(seconds=900, memory_mb=16_000)) as observer:
        observer.start("server", argv, log=folder / "server.log")
        observer.wait_for(lambda: result.exists())
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.proc import Sample, arguments, carries, read_sample, with_memory

MARK = "BENCH_PEERS_RUN"
SAMPLE_SECONDS = 0.1
STOP_SECONDS = 10.0
FIRST_TO_KILL = 'echo 800 > /proc/self/oom_score_adj; exec "$0" "$@"'
"""Should the machine run out of memory all the same, the kernel ends these processes before others."""

Roles = Callable[[Sequence[str]], str | None]
"""From a process's arguments to `server`, `client`, or None for what belongs to neither."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a system may take. `memory_mb` is of all its processes together, None for no limit."""

    seconds: float
    memory_mb: float | None = None


@dataclass(slots=True)
class Usage:
    """What was seen of processes with one role. `moments` are Unix seconds with processor seconds up to then."""

    largest_mb: float = 0.0
    together_mb: float = 0.0
    moments: list[tuple[float, float]] = field(default_factory=list)

    def cpu_between(self, start: float, end: float) -> float:
        """Processor seconds in that time, to the nearest samples before."""
        return self._cpu_at(end) - self._cpu_at(start)

    def _cpu_at(self, moment: float) -> float:
        index = bisect_right(self.moments, (moment, float("inf"))) - 1
        return self.moments[index][1] if index >= 0 else 0.0


class Observer:
    """Starts a system's processes, watches them from a thread, and ends them when the `with` block is left."""

    def __init__(self, roles: Roles, limits: Limits) -> None:
        self.usage = {"server": Usage(), "client": Usage()}
        self._roles = roles
        self._limits = limits
        self._mark = uuid.uuid4().hex
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._members: dict[tuple[int, int], Sample] = {}
        self._strangers: set[int] = set()
        self._role_of: dict[tuple[int, int], str] = {}
        self._deadline = time.monotonic() + limits.seconds
        self._stop = threading.Event()
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.end_all()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command; what it writes is appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        inherited = os.environ if environment is None else environment
        with log.open("ab") as stream:
            process = subprocess.Popen(
                ["/bin/sh", "-c", FIRST_TO_KILL, *argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**inherited, MARK: self._mark},
                cwd=folder,
                start_new_session=True,
            )
        self._started.append((name, process))
        return process

    def run(self, name: str, argv: Sequence[str], **where: Any) -> None:
        """A command to its end.

        Raises:
            PeerFailure: it failed, or a limit was passed.
        """
        process = self.start(name, argv, **where)
        self.wait_for(lambda: process.poll() == 0)
        self._started.remove((name, process))

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Until `done`.

        Raises:
            PeerFailure: a limit was passed, or a process that `start` began ended first.
        """
        while not done():
            if self._fault is not None:
                raise PeerFailure(self._fault)
            if not self._thread.is_alive():
                raise RuntimeError("the thread that watches the limits has ended")
            if time.monotonic() > self._deadline:
                raise PeerFailure(f"not done after {self._limits.seconds:.0f} s")
            for name, process in self._started:
                code = process.poll()
                if code is not None and not done():
                    raise PeerFailure(self._fault or f"{name} ended {how(code)}")
            time.sleep(SAMPLE_SECONDS)

    def end_all(self) -> None:
        """SIGTERM to all that are left, SIGKILL to those still there after STOP_SECONDS."""
        deadline = time.monotonic() + STOP_SECONDS
        self._signal(signal.SIGTERM)
        while self._reaped_alive() and time.monotonic() < deadline:
            time.sleep(SAMPLE_SECONDS)
        while self._reaped_alive():
            self._signal(signal.SIGKILL)
            time.sleep(SAMPLE_SECONDS)

    def _reaped_alive(self) -> list[Sample]:
        for _, process in self._started:
            process.poll()
        return self._sample()

    def _signal(self, number: signal.Signals) -> None:
        for sample in self._sample():
            try:
                os.kill(sample.pid, number)
            except ProcessLookupError:
                continue

    def _watch(self) -> None:
        while not self._stop.is_set():
            now = time.time()
            self._count(now, self._sample())
            self._stop.wait(SAMPLE_SECONDS)

    def _count(self, now: float, alive: list[Sample]) -> None:
        """Add one reading to the usage of each role, and see to the memory limit."""
        for role, usage in self.usage.items():
            mine = [sample for sample in alive if self._role_of.get((sample.pid, sample.born)) == role]
            usage.together_mb = max(usage.together_mb, sum(sample.resident_mb for sample in mine))
            usage.largest_mb = max([usage.largest_mb, *(sample.peak_mb for sample in mine)])
            total = sum(each.cpu_seconds for key, each in self._members.items() if self._role_of.get(key) == role)
            usage.moments.append((now, total))
        taken, allowed = sum(sample.anonymous_mb for sample in alive), self._limits.memory_mb
        if allowed is not None and taken > allowed and self._fault is None:
            self._fault = f"ended at the memory limit: its processes held {taken:,.0f} MB, {allowed:,.0f} are allowed"
            self._signal(signal.SIGKILL)

    def _sample(self) -> list[Sample]:
        """The system's processes that are alive. Strangers are looked at once."""
        present = {int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()}
        self._strangers &= present
        read = [sample for pid in present - self._strangers if (sample := read_sample(pid)) is not None]
        alive: dict[int, Sample] = {}
        for sample in sorted(read, key=lambda each: (each.born, each.pid)):  # parents before their children
            if self._belongs(sample, alive):
                alive[sample.pid] = self._members[sample.pid, sample.born] = with_memory(sample)
                if (role := self._roles(arguments(sample.pid))) is not None:
                    self._role_of[sample.pid, sample.born] = role
            elif sample.parent != os.getpid():  # a child of ours may not have become its command yet
                self._strangers.add(sample.pid)
        return list(alive.values())

    def _belongs(self, sample: Sample, alive: Mapping[int, Sample]) -> bool:
        known = (sample.pid, sample.born) in self._members
        return known or sample.parent in alive or carries(sample.pid, f"{MARK}={self._mark}")


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by {name}" + (", as the kernel does when memory runs out" if name == "SIGKILL" else "")
