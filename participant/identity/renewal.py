"""Certificates renew themselves, and signing keys on order, without a restart (docs/protocol.md#renew).

    tick ─▶ less than a third of the certificate's life is left, or `identity renew`    new TLS pair, new channel
        ─▶ a new signing key is kept in next.signing.key.pem                             the same, and the key takes over

What passes (an unreachable coordinator) is logged and tried again, later each time. Where institutions have to approve a new
signing key, the offer is made again until they did; the present key signs meanwhile, and its certificate is renewed when it is
time. At start an expired certificate is renewed before anything connects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from common.clock import Clock, rfc3339
from common.errors import ApprovalPending, CertificateExpired, LLMasOSError
from common.identity.certificates import check_validity, validity
from common.identity.keys import SigningKey
from common.logs import get_logger
from common.statements.kinds import CertificateId
from common.wire.renewal import Renewer
from common.wire.session import Session
from participant.identity.keys import SigningKeys
from participant.memory.mirror import Mirror
from participant.memory.orders import Orders
from participant.memory.records import Event, Records

log = get_logger(__name__)

RENEW_SHARE = 1 / 3
"""Of a certificate's life: with less left it is renewed."""
FIRST_PAUSE_SECONDS = 15.0
MOST_PAUSE_SECONDS = 3600.0
SEEN_SECONDS = 10.0
APPROVAL_PAUSE_SECONDS = 60.0
"""Between offers of a new key that waits for approvals. Once the own copy of the ledger names it, the next tick goes on."""


@dataclass(frozen=True, slots=True)
class RenewalPorts:
    """Everything a renewal uses."""

    renewer: Renewer
    keys: SigningKeys
    session: Session
    mirror: Mirror
    orders: Orders
    records: Records
    clock: Clock


class Renewal:
    """`at_start` once, then `tick` at each pass of the agent's loop, on its thread. Any thread may `demand`."""

    def __init__(self, ports: RenewalPorts) -> None:
        self._ports = ports
        self._demanded = threading.Event()
        self._failures = 0
        self._not_before = float("-inf")
        self._validity: tuple[datetime, datetime] | None = None
        self._awaited: int | None = None

    def at_start(self) -> None:
        """Finish what a crash interrupted; renew a certificate that has expired meanwhile.

        Raises:
            CertificateExpired: it has expired and could not be renewed, or this clock is before its time.
        """
        tls, now = self._ports.renewer.tls, self._ports.clock.now()
        if tls.recover():
            log.info("certificate renewed", extra={"serial": tls.certificate_id().serial, "finished": "at start"})
        what = f"The certificate of {self._ports.renewer.institution}"
        if now <= self._valid()[1]:
            check_validity(tls.certificate.read_bytes(), now=now, what=what)
            return
        log.warning("certificate expired", extra={"at": rfc3339(self._valid()[1])})
        try:
            self._renew_expired()
        except LLMasOSError as err:
            raise CertificateExpired(
                f"{what} expired at {rfc3339(self._valid()[1])} and could not be renewed: {err.message} ({err.code})",
                err.fix,
            ) from err

    def tick(self) -> None:
        """Do what is due; what fails is logged and due again after a pause."""
        keys = self._ports.keys
        if keys.approval_awaited and keys.takes_over:
            keys.approval_awaited, self._not_before = False, float("-inf")
        if self._ports.clock.monotonic() < self._not_before:
            return
        if keys.pending is not None:
            self._attempt(self._rotate)
        if self._is_due() and (keys.pending is None or keys.approval_awaited):
            self._attempt(self._renew)

    def rotate(self) -> None:
        """A new signing key, made now, and the coordinator asked for it; `tick` goes on with what does not succeed at once."""
        fresh = self._ports.keys.pending is None
        key = self._ports.keys.stage()
        self._ports.orders.clear("rotate")
        if fresh:
            self._note("signing key made", public=key.public.public)
            self._attempt(self._rotate)

    def demand(self) -> None:
        """Renew at the next tick, whatever this machine's clock says: by the coordinator's the certificate has expired."""
        self._demanded.set()

    # --- doing it ----------------------------------------------------------------------------------------------------

    def _is_due(self) -> bool:
        if self._demanded.is_set() or self._ports.orders.get("renew") is not None:
            return True
        first, last = self._valid()
        return last - self._ports.clock.now() < (last - first) * RENEW_SHARE

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except ApprovalPending as err:
            if not self._ports.keys.approval_awaited:
                log.info("rotation awaits approval", extra={"error": err.message})
                self._note("signing key awaits approval", said=err.message)
            self._ports.keys.approval_awaited = True
            self._failures, self._not_before = 0, self._ports.clock.monotonic() + APPROVAL_PAUSE_SECONDS
        except LLMasOSError as err:
            pause = min(MOST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 20))
            self._failures += 1
            self._not_before = self._ports.clock.monotonic() + pause
            fields = {"code": err.code, "error": err.message, "fix": err.fix, "again_in_seconds": pause}
            log.warning("renewal failed", extra=fields)
        else:
            self._failures, self._not_before = 0, float("-inf")

    def _renew(self, new_key: SigningKey | None = None) -> int:
        """Ledger index of the roster that names the new certificate, and the new key if one is to take over."""
        ports = self._ports
        enrolment = ports.renewer.renew(ports.keys.present, listed=self._listed(), new_key=new_key)
        self._validity = None
        self._demanded.clear()
        ports.orders.clear("renew")
        ports.session.renew()
        serial, until = ports.renewer.tls.certificate_id().serial, rfc3339(self._valid()[1])
        log.info("certificate renewed", extra={"serial": serial, "until": until})
        self._note("certificate renewed", serial=serial, until=until)
        return enrolment.roster_index

    def _renew_expired(self) -> None:
        """A new key that was offered may count already: then only it is asked under. If it waits, the present one is."""
        try:
            self._renew(self._ports.keys.pending)
        except ApprovalPending:
            self._renew()

    def _rotate(self) -> None:
        """Offer the pending key until the ledger names it, then let it take over."""
        ports = self._ports
        if not (self._is_certified() and ports.keys.take_over()):
            if self._awaited is None:
                self._awaited = self._renew(ports.keys.pending)
            seen = ports.mirror.wait_beyond(self._awaited, SEEN_SECONDS).size > self._awaited
            if not ports.keys.take_over():
                self._awaited = None if seen else self._awaited
                return  # the follower is behind; the next tick looks again
        self._awaited = None
        public = ports.keys.present.public.public
        log.info("signing key rotated", extra={"public": public})
        self._note("signing key rotated", public=public)

    # --- what is known -----------------------------------------------------------------------------------------------

    def _valid(self) -> tuple[datetime, datetime]:
        if self._validity is None:
            self._validity = validity(self._ports.renewer.tls.read()[1])
        return self._validity

    def _listed(self) -> tuple[CertificateId, ...]:
        member = self._ports.mirror.state.member(self._ports.renewer.institution)
        return member.certificates if member else ()

    def _is_certified(self) -> bool:
        """Whether the certificate in use is the newest that the roster names: approved by others, a new key's came unasked."""
        listed = self._listed()
        return bool(listed) and listed[-1] == self._ports.renewer.tls.certificate_id()

    def _note(self, event: str, **fields: str) -> None:
        self._ports.records.note(Event(rfc3339(self._ports.clock.now()), event, fields))
