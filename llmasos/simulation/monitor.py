"""Follows a run to its end, and notices daemons that die meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from llmasos.simulation.deployment import Deployment
from llmasos.simulation.processes import Child, Lines, failed
from llmasos.simulation.progress import Progress
from llmasos.simulation.watch import RunView, parse_view

IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Followed:
    """The last view of a run, and whether `run watch` called its end a success."""

    view: RunView
    succeeded: bool


def follow(deployment: Deployment, run: str, show: Progress, *, quorum: int) -> Followed:
    """Watch `run` until it ends.

    Raises:
        OperationError: the coordinator, or so many participants that no quorum is left, ended by a failure of their own.
    """
    watcher = deployment.watch_run(run)
    lines = Lines()
    lines.add(watcher)
    health = Health(deployment, show, quorum=quorum)
    view: RunView | None = None
    try:
        while lines.open:
            for _, line in lines.wait(IDLE_SECONDS):
                view = parse_view(line)
                show.run(view)
            health.check()
    finally:
        lines.close()
    succeeded = watcher.process.wait() == 0
    if view is None or not view.ended:
        raise failed(watcher)
    return Followed(view, succeeded)


class Health:
    """Which daemons have died, each told once."""

    def __init__(self, deployment: Deployment, show: Progress, *, quorum: int) -> None:
        self._deployment = deployment
        self._show = show
        self._quorum = quorum
        self._told: set[str] = set()

    def check(self) -> None:
        """
        Raises:
            OperationError: nothing is left to wait for. A participant ended by a signal from outside may come back by hand
                (README.md in the output folder says how), so it is reported, and the round's deadline decides.
        """
        coordinator = self._deployment.coordinator
        if coordinator is not None and coordinator.exit_code is not None:
            raise failed(coordinator)
        participants = self._deployment.participants.values()
        ended = [child for child in participants if child.exit_code is not None]
        for child in ended:
            self._tell(child)
        broken = [child for child in ended if (child.exit_code or 0) > 0]
        if broken and len(participants) - len(broken) < self._quorum:
            raise failed(broken[0])

    def _tell(self, child: Child) -> None:
        if child.name in self._told:
            return
        self._told.add(child.name)
        code = child.exit_code or 0
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._show.event(f"participant {child.name} {how}; its log: {child.log}")
