"""What a federation's processes have used at any moment: sampled on a thread, exact to a twentieth of a second or so.

    with Sampler(deployment) as sampler:
        …                                      # the run
    used = sampler.at(closed_at) - sampler.at(opened_at)

Between two samples use is taken to grow evenly. Moments are seconds since the epoch, as the ledger's times are.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from common.errors import OperationError
from llmasos.simulation.deployment import Deployment
from measuring.accounting import Usage, children, total, usage

SECONDS_EACH_PROCESS = 0.005
"""Between two samples, for each process: a sample takes a tenth of a millisecond for each, so 2 % of a core at most."""
LEAST_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Used:
    """Of everybody."""

    coordinator: Usage
    agents: Usage
    workers: Usage

    def __add__(self, other: Used) -> Used:
        return Used(self.coordinator + other.coordinator, self.agents + other.agents, self.workers + other.workers)

    def __mul__(self, factor: float) -> Used:
        return Used(self.coordinator * factor, self.agents * factor, self.workers * factor)

    def __sub__(self, other: Used) -> Used:
        return self + other * -1.0

    @property
    def all(self) -> Usage:
        return self.coordinator + self.agents + self.workers


class Sampler:
    """Samples while its `with` block lasts; who has ended counts with what was last seen."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._moments: list[float] = []
        self._samples: list[Used] = []
        self._last: dict[int, Usage] = {}
        self.roles: dict[int, str] = {}
        """Process ids that were there, and what each was: coordinator, agent or worker."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def at(self, moment: float) -> Used:
        """What everybody had used by then.

        Raises:
            OperationError: sampling had not begun, or had ended.
        """
        after = bisect_left(self._moments, moment)
        if not 0 < after < len(self._moments):
            raise OperationError("Nobody measured what processes had used at that moment.", "Run the benchmark again.")
        before = after - 1
        span = self._moments[after] - self._moments[before]
        share = (moment - self._moments[before]) / span
        first, second = self._samples[before], self._samples[after]
        return first + (second - first) * share

    def _run(self) -> None:
        while not self._over.is_set():
            started = time.time()
            self.roles |= roles(self._deployment)
            for pid in self.roles:
                with suppress(OperationError):  # it has ended
                    self._last[pid] = usage(pid)
            self._moments.append((started + time.time()) / 2)
            self._samples.append(Used(self._of("coordinator"), self._of("agent"), self._of("worker")))
            self._over.wait(max(LEAST_SECONDS, SECONDS_EACH_PROCESS * len(self.roles)))

    def _of(self, role: str) -> Usage:
        return total(used for pid, used in self._last.items() if self.roles[pid] == role)


def roles(deployment: Deployment) -> dict[int, str]:
    """Process ids, and what each is."""
    if deployment.coordinator is None:
        raise OperationError("The coordinator does not run.")
    found = {deployment.coordinator.pid: "coordinator"}
    for agent in deployment.participants.values():
        found |= {agent.pid: "agent"} | dict.fromkeys(children(agent.pid), "worker")
    return found
