"""The policy, also where it cannot be read at the daemon's start: then plans wait, and `status` says why."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

from common.clock import Clock
from common.errors import InvalidConfiguration
from common.logs import get_logger
from participant.memory.records import Records
from participant.policy import LoadedPolicy, PolicyWatch

log = get_logger(__name__)


class PolicySource(Protocol):
    """The institution's policy as it stands."""

    @property
    def problem(self) -> str:
        """Why the file as it is now is not the policy; empty where it is."""
        ...

    def current(self) -> LoadedPolicy:
        """The policy, read anew when its file changed; the last good one where the file is broken.

        Raises:
            InvalidConfiguration: there never was a good one.
        """
        ...


class PatientPolicy:
    """A PolicySource over policy.yaml. Any thread."""

    def __init__(self, path: Path, records: Records, clock: Clock) -> None:
        self._path, self._records, self._clock = path, records, clock
        self._lock = threading.Lock()
        self._watch: PolicyWatch | None = None
        self._problem = ""

    @property
    def problem(self) -> str:
        """Why the file as it is now is not the policy; empty where it is."""
        return self._watch.problem if self._watch is not None else self._problem

    def current(self) -> LoadedPolicy:
        """The newest good policy.

        Raises:
            InvalidConfiguration: there was none since this daemon started.
        """
        with self._lock:
            if self._watch is None:
                self._watch = self._open()
        return self._watch.current()

    def _open(self) -> PolicyWatch:
        try:
            return PolicyWatch(self._path, self._records, self._clock)
        except InvalidConfiguration as err:
            if err.message != self._problem:
                self._problem = err.message
                log.error("policy rejected", extra={"error": err.message, "fix": err.fix})
            raise
