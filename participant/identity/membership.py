"""This institution's standing in the consortium: renewal, rotation, and leaving (docs/protocol.md#membership).

    leave    evidence exported ─▶ signed, kept, sent ─▶ the coordinator's `erased` ─▶ evidence exported once more

Interrupted anywhere, the same call goes on: what was signed is in the journal, what was taken is in the ledger.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from common.clock import Clock, rfc3339
from common.errors import UnknownCertificate, WrongParent
from common.ledger.state import Departure, LedgerState
from common.logs import get_logger
from common.statements.envelope import Parent, sign, signed_under
from common.statements.kinds import Control
from common.wire.session import Session
from participant.config import HomeLayout
from participant.follower import Follower
from participant.identity.keys import SigningKeys
from participant.identity.renewal import Renewal
from participant.memory.evidence import export_evidence as export_evidence
from participant.memory.journal import Egress, Journal, SignedSlot
from participant.memory.mirror import Mirror

log = get_logger(__name__)

LEAVES = "institution-leaves"
SEEN_SECONDS = 10.0
WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class MembershipPorts:
    """Everything that this institution's standing depends on."""

    institution: str
    layout: HomeLayout
    renewal: Renewal
    keys: SigningKeys
    session: Session
    journal: Journal
    mirror: Mirror
    follower: Follower
    clock: Clock


class Membership:
    """The agent's port of the same name; on the agent's thread."""

    def __init__(self, ports: MembershipPorts) -> None:
        self._ports = ports

    def tick(self) -> None:
        """Renew the certificate when it is time to; never raises for what may pass."""
        self._ports.renewal.tick()

    def rotate(self) -> None:
        """A new signing key."""
        self._ports.renewal.rotate()

    def leave(self, stopping: threading.Event) -> bool:
        """Export evidence, sign, send, and wait for the coordinator's word that the deltas are deleted; whether it came.

        Without it: `stopping` is set, or following the ledger must not go on.

        Raises:
            CoordinatorUnreachable, TooManyRequests: nothing is lost; call it again later.
            RefusalError: the coordinator does not take it, as from the last operator.
        """
        ports = self._ports
        if self._departure(ports.mirror.state) is None:
            export_evidence(ports.layout, ports.institution, ports.layout.evidence, replace=True)
            self._send()
        while not stopping.is_set() and ports.follower.failure is None:
            state = ports.mirror.state
            departure = self._departure(state)
            if departure is not None and departure.erased is not None:
                export_evidence(ports.layout, ports.institution, ports.layout.evidence, replace=True)
                log.info("deltas deleted", extra={"ledger_index": departure.erased.index})
                return True
            ports.mirror.wait_beyond(state.size, WAIT_SECONDS)
        return False

    def _departure(self, state: LedgerState) -> Departure | None:
        return state.departures.get(self._ports.institution)

    def _send(self) -> None:
        """Get the leave into the ledger."""
        ports = self._ports
        for _ in range(3):  # each roster that comes in between asks for a statement that follows it
            state = ports.mirror.state
            signed = self._signed(state)
            envelope = signed_under(signed.envelope, ports.keys.to_sign())
            try:
                index = ports.session.submit(envelope)
            except WrongParent:
                ports.mirror.wait_beyond(state.size, SEEN_SECONDS)
                continue
            except UnknownCertificate:
                if self._departure(ports.mirror.wait_beyond(state.size, SEEN_SECONDS)) is None:
                    raise
                return  # it was taken before, and its reply lost: who left may only follow
            now = rfc3339(ports.clock.now())
            ports.journal.book(Egress(now, "leave", len(envelope), signed.digest, ports.session.address))
            log.info("leave sent", extra={"ledger_index": index})
            ports.mirror.wait_beyond(index, SEEN_SECONDS)
            return
        raise WrongParent("The roster changed at each try to leave.", "Nothing is lost; it is tried again.")

    def _signed(self, state: LedgerState) -> SignedSlot:
        """The leave that follows the newest roster, kept before it is sent."""
        ports, parent = self._ports, state.roster_place or state.genesis_place
        slot = f"leave/{parent.digest}"
        known = ports.journal.signed(slot)
        if known is not None:
            return known
        now = rfc3339(ports.clock.now())
        leave = Control(action="leave", issued_at=now, reason=LEAVES, institution=ports.institution)
        statement = sign(leave, parent=Parent(parent.kind.value, parent.digest), key=ports.keys.to_sign())
        entry = SignedSlot(slot, statement.digest, statement.envelope, b"", b"", now)
        ports.journal.sign(entry)
        return entry
