"""Where processor time goes, measured: perf samples all daemons; each sample counts by the library and function it fell into.

    profile = Profile(file)
    profile.start(roles)           # {1234: "coordinator", 1240: "agent"}; what these processes start is sampled, too
    …
    profile.stop(begin, end)       # samples between these moments count
    print(profile.report())        # {"coordinator": {"steps": {"hash": 0.21, "kernel: copies": 0.17, …}, "functions": …}, …}

gRPC's library has no symbols: TLS in it is told apart by what perf can name only in part, so gRPC and TLS are one row.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path

from common.errors import OperationError

FREQUENCY = "199"
MOST_FUNCTIONS = 25
SAMPLE = re.compile(r"\s*(?P<pid>\d+)\s+(?P<time>[\d.]+):\s+[0-9a-f]+ (?P<symbol>.*) \((?P<library>.*)\)$")
KERNEL_STEPS = (
    (
        "kernel: files",
        ("folio", "ext4", "xfs", "btrfs", "filemap", "iomap", "writeback", "jbd2", "blk_", "virtblk", "xas_"),
    ),
    ("kernel: copies", ("copy", "rep_movs")),
    ("kernel: new pages", ("clear_page", "fault", "alloc_pages", "rmqueue", "get_page_from", "free_unref", "memset")),
    ("kernel: network", ("tcp", "sock", "skb", "ip_", "net", "loopback")),
    (
        "kernel: waking and switching",
        ("task_switch", "spin_unlock", "schedule", "futex", "wake", "irq", "idle", "epoll"),
    ),
)
"""What the names of the kernel's functions hold, in this order; copies are those to and from sockets, and out of files."""
LIBRARIES = (
    ("hash", ("blake3",)),
    ("gRPC and TLS", ("cygrpc",)),
    ("fold and inspect (numpy)", ("numpy", "_multiarray", "openblas")),
    ("memory copies (libc)", ("libc.so", "libc-", "ld-linux")),
    ("protobuf", ("_upb", "protobuf")),
    ("Python", ("python", "libpython")),
)


class Profile:
    """One recording of several processes."""

    def __init__(self, file: Path) -> None:
        """
        Raises:
            OperationError: perf is not there.
        """
        if shutil.which("perf") is None:
            raise OperationError("There is no perf here.", "Install it (Debian: linux-perf), or leave --profile out.")
        self._file = file
        self._roles: dict[int, str] = {}
        self._clocks, self._span = 0.0, (0.0, 0.0)
        self._perf: subprocess.Popen[bytes] | None = None

    def start(self, roles: dict[int, str]) -> None:
        """Record these processes. Ids that are added to `roles` while it goes on are told apart at the end."""
        while not roles:  # the sampler finds them in a moment
            time.sleep(0.01)
        self._roles = roles
        self._clocks = time.time() - time.monotonic()
        pids = ",".join(str(pid) for pid in roles)
        argv = ["perf", "record", "--quiet", "-F", FREQUENCY, "-e", "cpu-clock", "-k", "CLOCK_MONOTONIC"]
        self._perf = subprocess.Popen(
            [*argv, "-p", pids, "-o", str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self, begin: float, end: float) -> None:
        """Ends the recording; moments are seconds since the epoch."""
        self._span = (begin - self._clocks, end - self._clocks)
        if self._perf is not None:
            self._perf.send_signal(signal.SIGINT)
            self._perf.wait(timeout=60)
            self._perf = None

    def report(self) -> dict[str, dict[str, dict[str, float]]]:
        """Of each role's samples, the share of each step and of the most frequent functions, largest first.

        Raises:
            OperationError: perf recorded nothing that it can read.
        """
        argv = ["perf", "script", "-i", str(self._file), "-F", "pid,time,ip,sym,dso"]
        found = subprocess.run(argv, capture_output=True, text=True, check=False)
        steps: dict[str, Counter[str]] = defaultdict(Counter)
        functions: dict[str, Counter[str]] = defaultdict(Counter)
        for line in found.stdout.splitlines():
            match = SAMPLE.match(line)
            if match and self._span[0] <= float(match["time"]) <= self._span[1]:
                role = self._roles.get(int(match["pid"]), "other")
                steps[role][step_of(match["symbol"], match["library"])] += 1
                functions[role][f"{match['symbol']} ({Path(match['library']).name})"] += 1
        if not steps:
            raise OperationError(
                f"perf recorded nothing: {found.stderr.strip()[-300:]}",
                "See perf_event_paranoid in perf's manual, or leave --profile out.",
            )
        return {
            role: {"steps": shares(steps[role]), "functions": shares(functions[role], MOST_FUNCTIONS)} for role in steps
        }


def shares(counter: Counter[str], most: int | None = None) -> dict[str, float]:
    return {name: round(count / counter.total(), 3) for name, count in counter.most_common(most)}


def step_of(symbol: str, library: str) -> str:
    """Which step a sample belongs to."""
    if "kernel" in library or library.startswith("["):
        return next((step for step, words in KERNEL_STEPS if any(word in symbol for word in words)), "kernel: other")
    return next((step for step, words in LIBRARIES if any(word in library for word in words)), "other")
