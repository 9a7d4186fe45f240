"""What the agent uses, as its parts see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from common.blobs.store import FolderBlobStore
from common.clock import Clock
from common.ledger.state import RunRecord
from common.wire.session import Session
from participant.datasets import DataSet
from participant.follower import Follower
from participant.mirror import Mirror
from participant.orders import Orders
from participant.policy import LoadedPolicy, Usage
from participant.records import Records
from participant.sending import Outbox
from participant.workbench import Workbench

if TYPE_CHECKING:
    from participant.pausing import Gatekeeper


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


@dataclass(frozen=True, slots=True)
class AgentPorts:
    """Everything the agent uses."""

    institution: str
    session: Session
    mirror: Mirror
    follower: Follower
    outbox: Outbox
    workbench: Workbench
    blobs: FolderBlobStore
    policy: PolicySource
    usage: Callable[[RunRecord], Usage]
    gatekeeper: Gatekeeper
    orders: Orders
    records: Records
    data: Callable[[], Sequence[DataSet]]
    membership: Membership
    status: StatusBoard
    clock: Clock
