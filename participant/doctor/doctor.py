"""Which checks there are, and their order: what is quick and what others need comes first.

    for finding in Doctor(home, clock, terminal.progress).examine():
        print(finding.state, finding.check, finding.found, finding.fix)

Nothing is changed, nothing is sent but this institution's certificate, and it may run beside the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from common.clock import Clock
from common.identity.invitation import open_genesis
from participant.config import HomeLayout, load_config
from participant.doctor import disk, home, network, worker
from participant.doctor.finding import Finding, Subject, guarded

CHECKS: tuple[tuple[str, Callable[[Subject], Iterator[Finding]]], ...] = (
    ("permissions", home.permissions),
    ("keys", home.keys),
    ("certificate", home.certificate),
    ("policy", home.policy),
    ("data", home.data),
    ("disk space", disk.space),
    ("disk writes", disk.writes),
    ("speed", network.speed),
    ("work port", network.work_port),
    ("enrol port", network.enrolment_port),
    ("membership", network.membership),
    ("daemon", worker.daemon),
    ("worker", worker.worker),
)
_WAITED_FOR = {
    "work port": "connecting to the coordinator",
    "worker": "starting the worker, which can take half a minute",
}


class Doctor:
    """Examines one home folder.

    Args:
        progress: hears what is about to be waited for.
    """

    def __init__(self, home: Path, clock: Clock, progress: Callable[[str], None] = lambda text: None) -> None:
        self._layout = HomeLayout(home)
        self._clock = clock
        self._progress = progress

    def examine(self) -> Iterator[Finding]:
        """One finding of most checks, one of each data set.

        Raises:
            NotInitialised: the folder holds no participant.
            InvalidConfiguration: participant.yaml is not right, so that nothing else can be checked.
        """
        layout = self._layout
        config = load_config(layout.home)
        subject = Subject(layout, config, open_genesis(layout.genesis.read_bytes())[1], self._clock)
        yield Finding("configuration", "ok", f"{layout.config}: {config.institution} of {config.consortium}")
        for name, check in CHECKS:
            if name in _WAITED_FOR:
                self._progress(_WAITED_FOR[name])
            yield from guarded(name, check, subject)
