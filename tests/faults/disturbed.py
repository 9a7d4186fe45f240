"""A federation to which things happen."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from llmasos.simulation.deployment import edit_line
from tests.faults.network import Way
from tests.faults.schedule import Fault, Kind
from tests.support.federations import NAMES, Federation

TRAINING_SECONDS = 0.15
"""How long a null worker takes for a round: else it would hardly ever be killed in the middle of one."""


class DisturbedFederation(Federation):
    """The institutions reach the coordinator by a way that can fail."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES) -> None:
        super().__init__(folder, names)
        self.way = Way()

    def __enter__(self) -> Self:
        self.way.__enter__()
        try:
            super().__enter__()
        except BaseException:
            self.way.__exit__(*sys.exc_info())
            raise
        for name in self.names:
            (self.data(name) / "seconds").write_text(str(TRAINING_SECONDS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.way.__exit__(kind, error, trace)

    def _pin_ports(self) -> None:
        """Invitations name the way; operators go straight."""
        super()._pin_ports()
        self.way.target = self.addresses()["work"]
        line = f"work: {self.way.target}"
        edit_line(self.coordinator_home / "coordinator.yaml", line, f"{line}\n  public_work: {self.way.address}")
        self.kill_coordinator()
        self.start_coordinator()

    def suffer(self, fault: Fault) -> None:
        """The fault, and its end."""
        time.sleep(fault.quiet_seconds)
        match fault.kind:
            case Kind.COORDINATOR_KILLED:
                self.kill_coordinator()
                time.sleep(fault.lasts_seconds)
                self.start_coordinator()
            case Kind.AGENT_KILLED:
                self.kill_participant(fault.whom)
                time.sleep(fault.lasts_seconds)
                self.start_participant(fault.whom)
            case Kind.WORKER_KILLED:
                for worker in self.workers(fault.whom):
                    _signal(worker, signal.SIGKILL)
            case Kind.ALL_KILLED:
                self._kill_all(fault)
            case Kind.COORDINATOR_STOPPED:
                assert self.coordinator is not None
                self._stop(self.coordinator.pid, fault)
            case Kind.AGENT_STOPPED:
                self._stop(self.participants[fault.whom].pid, fault)
            case Kind.CONNECTIONS_CUT:
                self.way.cut()
            case Kind.NETWORK_STALLED:
                self.way.stall(True)
                time.sleep(fault.lasts_seconds)
                self.way.stall(False)
            case Kind.NETWORK_GONE:
                self.way.leave(True)
                time.sleep(fault.lasts_seconds)
                self.way.leave(False)

    def workers(self, name: str) -> list[psutil.Process]:
        """The processes that an institution's agent started."""
        try:
            return psutil.Process(self.participants[name].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _kill_all(self, fault: Fault) -> None:
        for name in self.names:
            self.kill_participant(name)
        self.kill_coordinator()
        time.sleep(fault.lasts_seconds)
        self.start_participants()
        self.start_coordinator()

    def _stop(self, pid: int, fault: Fault) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(fault.lasts_seconds)
        finally:
            os.kill(pid, signal.SIGCONT)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return  # it ended by itself in this very moment
