"""What is asked of each system."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.errors import PeerFailure
from benchmarks.peers.observer import Limits

MEGABYTE = 1_000_000
CAUSE = re.compile(r"\b([\w.]*(Error|Exception|Failure)\b.*|Killed.*|out of memory.*)")
MOST_OF_CAUSE = 160


@dataclass(frozen=True, slots=True)
class Job:
    """How large, how many, how often; `cache` keeps environments, `work` is empty and a system's own."""

    mb: int
    participants: int
    rounds: int
    limits: Limits
    cache: Path
    work: Path

    @property
    def total_bytes(self) -> int:
        return self.mb * MEGABYTE


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def read_result(path: Path) -> dict[str, Any]:
    """What a peer's server wrote.

    Raises:
        PeerFailure: it wrote why it failed, or the last model is not the mean of what was sent.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    wrong = found.get("error") or found.get("fault")
    if wrong:
        raise PeerFailure(short(str(wrong)))
    return found


def with_cause(failure: PeerFailure, logs: Iterable[Path]) -> PeerFailure:
    """The same failure with the last error that a log speaks of, if any does."""
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    causes = [found[1] for line in lines if (found := CAUSE.search(line))]
    return PeerFailure(f"{failure}; its log: {short(causes[-1])}") if causes else failure


def short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_OF_CAUSE else line[: MOST_OF_CAUSE - 1] + "…"
