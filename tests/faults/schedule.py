"""Which fault comes when: drawn by seed, without knowledge of what the processes do at that instant."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can happen to a federation."""

    COORDINATOR_KILLED = "coordinator killed"
    AGENT_KILLED = "agent killed"
    WORKER_KILLED = "worker killed"
    ALL_KILLED = "all killed at once"
    COORDINATOR_STOPPED = "coordinator stopped, woken"
    AGENT_STOPPED = "agent stopped, woken"
    CONNECTIONS_CUT = "connections cut"
    NETWORK_STALLED = "network stalled"
    NETWORK_GONE = "network gone"


WEIGHTS = {
    Kind.COORDINATOR_KILLED: 6,
    Kind.AGENT_KILLED: 6,
    Kind.WORKER_KILLED: 4,
    Kind.ALL_KILLED: 2,
    Kind.COORDINATOR_STOPPED: 1,
    Kind.AGENT_STOPPED: 1,
    Kind.CONNECTIONS_CUT: 2,
    Kind.NETWORK_STALLED: 1,
    Kind.NETWORK_GONE: 1,
}
MOST_QUIET_SECONDS = 0.9
MOST_LASTING_SECONDS = 1.2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        quiet_seconds: how long after the one before was over.
        whom: an institution, where it concerns one.
        lasts_seconds: until what was killed is started again, or what was stopped goes on.
    """

    kind: Kind
    quiet_seconds: float
    whom: str
    lasts_seconds: float


def faults(seed: int, names: Sequence[str]) -> Iterator[Fault]:
    """Without end; the same for the same seed. Every kind comes once before any comes by chance."""
    drawn = random.Random(seed)
    first = list(Kind)
    drawn.shuffle(first)
    while True:
        kind = first.pop() if first else drawn.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        yield Fault(
            kind,
            drawn.uniform(0.02, MOST_QUIET_SECONDS),
            drawn.choice(list(names)),
            drawn.uniform(0.0, MOST_LASTING_SECONDS),
        )
