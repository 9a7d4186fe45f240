"""Memory cgroups, version 1 or 2 as this machine has them: one for each daemon, with a limit and without swap.

    cages = Cages.find(limit_bytes=512_000_000)
    with cages, CagedProcesses(cages) as processes:
        …                                            # each daemon that `processes` starts lives in a cage of its own
        print(cages.readings())

The page cache of files that a process reads and writes counts in its cage and is taken back when room is needed, so the
highest use comes near the limit wherever files are larger than that; what must not happen is an OOM kill. What a daemon starts
itself, a participant's worker, lives in its cage too. Cages are made below this process's own cgroup (version 1), or below the
nearest one that lends its memory controller (version 2), and are removed at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from common.errors import OperationError
from llmasos.simulation.processes import Child, Processes
from measuring import enter_cgroup
from measuring.accounting import MEGABYTE, PROC

REMOVE_SECONDS = 5.0
FIX = (
    "Run as root, or in a systemd scope with its own subtree: systemd-run --user --scope -p Delegate=yes …; "
    "or leave --cgroup out."
)


@dataclass(frozen=True, slots=True)
class Names:
    """What the files of one version are called."""

    version: int
    limit: str
    swap: str
    swap_limits_both: bool
    """Version 1 limits memory and swap together, version 2 swap alone."""
    peak: str
    events: str
    hits: tuple[str, str]
    """File and line of how often the limit was met and pages were taken back; the line is empty where it is the file."""


V1 = Names(
    1,
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    True,
    "memory.max_usage_in_bytes",
    "memory.oom_control",
    ("memory.failcnt", ""),
)
V2 = Names(2, "memory.max", "memory.swap.max", False, "memory.peak", "memory.events", ("memory.events", "max"))


@dataclass(frozen=True, slots=True)
class Reading:
    """What one cage saw."""

    peak_mb: float
    """Memory and page cache together."""
    oom_kills: int
    limit_hits: int
    """How often pages had to be taken back to stay below the limit."""


class Cages:
    """A folder of cgroups that share nothing but their limit."""

    def __init__(self, folder: Path, names: Names, limit_bytes: int) -> None:
        self.names = names
        self._folder, self._limit = folder, limit_bytes
        self._made: dict[str, Path] = {}

    @classmethod
    def find(cls, limit_bytes: int, proc: Path = PROC) -> Cages:
        """Where this machine allows cages; one is tried.

        Raises:
            OperationError: it allows none; says what was tried.
        """
        tried: list[str] = []
        for names, place in places(proc):
            cages = cls(place / f"llmasos-benchmark-{os.getpid()}", names, limit_bytes)
            try:
                with cages:
                    cages.cage("probe")
            except OSError as err:
                tried.append(f"{place} (version {names.version}): {err.strerror}")
            else:
                return cages
        raise OperationError(
            "This machine lets nobody make a memory cgroup here; tried "
            + ("; ".join(tried) if tried else "nothing, as no memory controller is mounted")
            + ".",
            FIX,
        )

    def cage(self, name: str) -> Path:
        """A new cgroup with the limit and no swap."""
        if not self._folder.exists():
            self._folder.mkdir()
            if self.names.version == 2:
                _lend_memory(self._folder.parent)
                _lend_memory(self._folder)
        place = self._folder / name
        place.mkdir()
        self._made[name] = place
        (place / self.names.limit).write_text(str(self._limit))
        swap = place / self.names.swap
        if swap.exists():  # absent where the kernel keeps no account of swap
            swap.write_text(str(self._limit if self.names.swap_limits_both else 0))
        elif swap_is_on():
            raise OSError(None, f"swap is on and {self.names.swap} is not there")
        return place

    def readings(self) -> dict[str, Reading]:
        """What each cage saw so far."""
        return {name: self._reading(place) for name, place in self._made.items()}

    def _reading(self, place: Path) -> Reading:
        file, line = self.names.hits
        return Reading(
            int((place / self.names.peak).read_text()) / MEGABYTE,
            _lines(place / self.names.events)["oom_kill"],
            _lines(place / file)[line] if line else int((place / file).read_text()),
        )

    def __enter__(self) -> Cages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the cages; processes in them must have ended."""
        for place in (*self._made.values(), self._folder):
            _remove(place)
        self._made = {}


class CagedProcesses(Processes):
    """Puts each daemon into a cage of its own; commands and benchmarks' own helpers stay outside."""

    def __init__(self, cages: Cages) -> None:
        super().__init__()
        self._cages = cages

    def start(
        self, name: str, argv: Sequence[str], *, log: Path, lifeline: bool = False, capture: bool = False
    ) -> Child:
        inside: Sequence[str] = ()
        if lifeline:  # daemons have one, commands do not
            inside = (sys.executable, "-I", str(enter_cgroup.__file__), str(self._cages.cage(name)))
        return super().start(name, [*inside, *argv], log=log, lifeline=lifeline, capture=capture)


def places(proc: Path) -> Iterator[tuple[Names, Path]]:
    """Cgroups in which cages may be tried, best first: version 1's own, or version 2's own and those above it."""
    paths: dict[str, str] = {}
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in (proc / "self" / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and "memory" in options.split(",") and "memory" in paths:
            yield V1, _below(Path(mounted), root, paths["memory"])
        if kind == "cgroup2" and "" in paths:
            own = _below(Path(mounted), root, paths[""])
            for place in (own, *own.parents):
                controllers_file = place / "cgroup.controllers"
                if controllers_file.exists() and "memory" in controllers_file.read_text().split():
                    yield V2, place
                if place == Path(mounted):
                    break


def _below(mounted: Path, root: str, path: str) -> Path:
    """Where a cgroup of this path lies, under a mount that shows the hierarchy from `root` on."""
    inside = path.removeprefix(root) if root != "/" else path
    return mounted / inside.strip("/")


def _lend_memory(place: Path) -> None:
    control = place / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def swap_is_on() -> bool:
    return len((PROC / "swaps").read_text().splitlines()) > 1


def _lines(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}


def _remove(place: Path) -> None:
    """A cgroup is busy for a moment after its last process has ended."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while place.exists():
        with suppress(OSError):
            place.rmdir()
            return
        if time.monotonic() > deadline:
            place.rmdir()
        time.sleep(0.05)
