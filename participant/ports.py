"""What the agent uses, as its parts see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.blobs.store import FolderBlobStore
from common.clock import Clock
from common.ledger.state import RoundRecord, RunRecord
from common.wire.session import Session
from participant.bench.workbench import Workbench
from participant.datasets import DataSet
from participant.follower import Follower
from participant.hours.pausing import Gatekeeper
from participant.memory.mirror import Mirror
from participant.memory.orders import Orders
from participant.memory.records import Records
from participant.policy import Usage
from participant.policy.source import PolicySource
from participant.residuals import Residuals
from participant.sending import Outbox
from participant.witnessing import Standing


class StatusBoard(Protocol):
    """Told what the agent does, for `participant status`."""

    def doing(self, activity: str, **fields: str | int) -> None: ...

    def worker(self, **fields: str | int | bool) -> None: ...

    def tell(self, **fields: Any) -> None:
        """Whatever else is to be shown: JSON values by name."""
        ...


class Membership(Protocol):
    """What changes this institution's standing in the consortium."""

    def tick(self) -> None:
        """Renew the certificate when it is time to; never raises for what may pass."""
        ...

    def rotate(self) -> None:
        """A new signing key. Only while no signed statement is unsent."""
        ...

    def leave(self, stopping: threading.Event) -> bool:
        """Export evidence, sign, send, and wait for the coordinator's word that the deltas are deleted; whether it came.

        Raises:
            CoordinatorUnreachable, TooManyRequests: nothing is lost; call it again later.
        """
        ...


class Witnesses(Protocol):
    """What witnesses saw, as it was verified here."""

    def expect_one_history(self) -> None:
        """
        Raises:
            TwoHistories: two were shown, and no person has seen to it yet.
        """
        ...

    def standing(self, record: RoundRecord) -> Standing:
        """Whether this round may be acted on."""
        ...


@dataclass(frozen=True, slots=True)
class AgentPorts:
    """Everything the agent uses."""

    institution: str
    session: Session
    mirror: Mirror
    follower: Follower
    witnesses: Witnesses
    outbox: Outbox
    workbench: Workbench
    blobs: FolderBlobStore
    residuals: Residuals
    policy: PolicySource
    usage: Callable[[RunRecord], Usage]
    gatekeeper: Gatekeeper
    orders: Orders
    records: Records
    data: Callable[[], Sequence[DataSet]]
    membership: Membership
    status: StatusBoard
    clock: Clock
    catching_up: Callable[[], bool] = lambda: False
    """Whether this home was restored and has not read yet what it signed since: nothing is signed then."""
