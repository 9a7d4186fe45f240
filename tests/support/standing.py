"""An institution's identity on disk beside a coordinator in memory: what renews, rotates and leaves.

north = Standing(tmp_path / "north", coordinator)
north.renewal.tick()                     # asks `coordinator.desk` where the daemon would ask the enrolment listener
north.failures = [CoordinatorUnreachable("…")]
north.restart()                          # everything from disk again, as after kill -9
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.clock import Clock
from common.errors import LLMasOSError
from common.homes import atomic_write
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.identity.tls_pair import TlsPair
from common.statements.kinds import Member
from common.wire.messages import Enrolment, RenewalRequest
from common.wire.renewal import Renewer
from coordinator.ports import RenewalOffer
from participant.config import HomeLayout
from participant.identity.keys import SigningKeys
from participant.identity.membership import Membership, MembershipPorts
from participant.identity.renewal import Renewal, RenewalPorts
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.memory.orders import Orders
from participant.memory.records import Records
from tests.support.coordinators import Coordinator


class StandingSession:
    """What leaving and renewing use of a session."""

    address = "memory"

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self.renewed = 0
        self.submitted: list[bytes] = []
        self.after_submit: Callable[[], object] = lambda: None

    def renew(self) -> None:
        self.renewed += 1

    def submit(self, envelope: bytes) -> int:
        self._standing.fail()
        coordinator, name = self._standing.coordinator, self._standing.name
        certificate = self._standing.tls.certificate_id()
        member = coordinator.ledger.by_certificate(
            certificate.serial,
            certificate.spki_sha256,
            f"spiffe://{coordinator.state.genesis.consortium}/institution/{name}",
        )
        self.submitted.append(envelope)
        index = coordinator.desk.submit(member, envelope, None)
        self.after_submit()
        self._standing.catch_up()
        return index


class StandingFollower:
    """What leaving looks at of the follower."""

    failure: LLMasOSError | None = None
    recovering = False
    recoveries = 0


class Standing:
    """The real parts over a folder; the network is calls."""

    def __init__(
        self,
        folder: Path,
        coordinator: Coordinator,
        name: str = "north",
        passphrase: bytes | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.coordinator, self.name, self.passphrase = coordinator, name, passphrase
        self._clock = clock or coordinator.clock
        self.layout = layout = HomeLayout(folder)
        self.failures: list[LLMasOSError] = []
        self.requests: list[RenewalRequest] = []
        self.lags = False
        self.after_reply: Callable[[], object] = lambda: None
        layout.identity.mkdir(parents=True)
        coordinator[name].key.save(layout.signing_key, passphrase)
        coordinator[name].tls.save(layout.tls_key, passphrase)
        row = coordinator.database.certificate(self.member.certificates[-1].serial)
        assert row is not None
        atomic_write(layout.tls_certificate, row.pem)
        atomic_write(layout.genesis, coordinator.genesis)
        self._open()

    def _open(self) -> None:
        layout, clock = self.layout, self._clock
        self.journal, self.orders, self.records = (
            Journal(layout.journal),
            Orders(layout.journal),
            Records(layout.journal),
        )
        self.mirror = Mirror(self.journal, self.coordinator.genesis)
        self.tls = TlsPair(layout.tls_key, layout.tls_certificate, self.passphrase)
        self.keys = SigningKeys(layout.signing_key, self.passphrase, self.name, lambda: self.mirror.state)
        self.session: Any = StandingSession(self)
        self.follower: Any = StandingFollower()
        statement, genesis = open_genesis(self.coordinator.genesis)
        renewer = Renewer("memory", genesis, bytes.fromhex(statement.digest), self.name, self.tls, ask=self.ask)
        self.renewal = Renewal(
            RenewalPorts(renewer, self.keys, self.session, self.mirror, self.orders, self.records, clock)
        )
        self.membership = Membership(
            MembershipPorts(
                self.name,
                layout,
                self.renewal,
                self.keys,
                self.session,
                self.journal,
                self.mirror,
                self.follower,
                clock,
            )
        )

    def close(self) -> None:
        for part in (self.journal, self.orders, self.records):
            part.close()

    def restart(self) -> None:
        self.close()
        self._open()

    @property
    def member(self) -> Member:
        found = self.coordinator.state.member(self.name)
        assert found is not None
        return found

    def ask(self, request: RenewalRequest) -> Enrolment:
        """The coordinator's answer; the ledger's copy catches up, unless it `lags`."""
        self.fail()
        self.requests.append(request)
        enrolled = self.coordinator.desk.renew(
            RenewalOffer(
                request.institution,
                request.replaces_serial,
                request.csr_der,
                request.proof,
                request.new_signing_key,
                request.new_proof,
            )
        )
        self.after_reply()
        if not self.lags:
            self.catch_up()
        return Enrolment(enrolled.certificate_pem, enrolled.roster_index)

    def catch_up(self) -> None:
        """What the follower does, where this institution is still let in."""
        state, last = self.mirror.state, self.coordinator.ledger.readable_until(self.name)
        found = self.coordinator.ledger.slice(state.size, max_bytes=2**20, wait_seconds=0).envelopes
        readable = found if last is None else found[: last + 1 - state.size]
        if readable:
            self.mirror.admit(state.size, readable)

    def fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def is_sound(self) -> bool:
        """Whether the keys and the certificate that this home uses are those that the coordinator's roster names."""
        self.tls.read()
        names_key = SigningKey.load(self.layout.signing_key, self.passphrase).public == self.member.signing_key
        return names_key and self.tls.certificate_id() in self.member.certificates and self.keys.pending is None
