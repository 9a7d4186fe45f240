"""Changes of membership after enrolment: renewal, rotation, revocation, leaving (docs/protocol.md#membership).

    renew    certificates (newest, new), and the signing key if it changes     asked for under the present signing key
    revoke   status revoked                                                    an operator says so
             a new key and a revocation wait for approvals, where genesis asks for them (coordinator.members.proposals)
    leave    status left ─▶ its deltas deleted ─▶ `erased`                     the institution signed it; `settle` does it

Runs on the engine's thread, since it appends roster statements. Each step is durable by itself and found again from the ledger,
so a process that was killed between two of them goes on at its next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.clock import Clock, rfc3339
from common.errors import (
    BadSignature,
    BlobError,
    InvalidInvitation,
    StorageFailure,
    UnknownCertificate,
    UnknownObject,
    UsageError,
)
from common.identity.authority import Authority, requested_spki_sha256
from common.identity.certificates import certificate_id, renew_proof_message
from common.identity.keys import verify_raw
from common.ledger.state import LedgerState, Place
from common.logs import get_logger
from common.statements.kinds import CertificateId, Control, Member, PublicKey
from coordinator.ledger import Ledger
from coordinator.members.changes import Change, request_digest
from coordinator.members.proposals import Proposals
from coordinator.members.rosters import check_signing_key, next_roster
from coordinator.ports import Enrolled, RenewalOffer
from coordinator.store.database import CertificateRow, Database

log = get_logger(__name__)

ERASED = "deltas-deleted"


class Eraser(Protocol):
    """Deletes what an institution that left contributed."""

    def erase(self, state: LedgerState, institution: str) -> bool:
        """Delete its retained deltas and unfinished uploads; False while an open round still needs one of them.

        Raises:
            StorageFailure: the disk says no.
        """
        ...


@dataclass(frozen=True, slots=True)
class MembershipPorts:
    """What changes of membership act on."""

    ledger: Ledger
    database: Database
    authority: Authority
    eraser: Eraser
    proposals: Proposals
    clock: Clock
    certificate_days: int


class MembershipDesk:
    """Renews, revokes, and lets go."""

    def __init__(self, ports: MembershipPorts) -> None:
        self._ports = ports
        self._ledger = ports.ledger

    # --- renewal -----------------------------------------------------------------------------------------------------

    def renew(self, offer: RenewalOffer) -> Enrolled:
        """A new certificate and the roster that names it; the same offer again gives the same certificate.

        Raises:
            ApprovalPending: institutions have to approve a new signing key first; the same offer again says how far it is.
            BadSignature: no member of that name signed this; whoever cannot sign learns no more.
            UnknownCertificate: the member is no longer active, or replaces another certificate than its newest.
            InvalidInvitation: the new signing key is weak, another member's, or did not sign.
            MalformedMessage: the request holds no P-256 key, or is not signed by it.
        """
        member, newest = self._signer(offer)
        stored = self._ports.database.certificate(newest.serial)
        if stored is not None and _is_repeated(offer, member, newest, stored):
            return Enrolled(stored.pem.decode(), stored.roster_index)
        if self._ports.proposals.resume("renew", member.name, _request(offer)) is not None:
            return self.renew(offer)
        if offer.replaces_serial != newest.serial:
            raise UnknownCertificate(
                f"The request replaces certificate {offer.replaces_serial} of {member.name}, "
                f"expected its newest, {newest.serial}.",
                "Let the participant follow the ledger, then ask again: llmasos-participant identity renew.",
            )
        return self._issue(offer, member, newest)

    def _signer(self, offer: RenewalOffer) -> tuple[Member, CertificateId]:
        """Who asks, and the newest certificate: the same work and the same words for an unknown name and a wrong signature."""
        state = self._ledger.state
        member = state.member(offer.institution)
        taken_over = member is not None and member.signing_key == _new_key(offer)
        key = member.signing_key if member else state.genesis.coordinator_key
        try:
            # Asked again after the new key took over, what counts is its own signature.
            verify_raw(key, (offer.new_proof or b"") if taken_over else offer.proof, self._message(offer))
        except BadSignature as err:
            raise _not_signed(offer) from err
        if member is None:
            raise _not_signed(offer)
        if not state.is_active(member.name) or not member.certificates:
            raise UnknownCertificate(
                f"{member.name} is no active member of {state.genesis.consortium}: {member.status}.",
                "Whoever was revoked or left comes back under a new name alone; ask the operator.",
            )
        return member, member.certificates[-1]

    def _message(self, offer: RenewalOffer) -> bytes:
        fingerprint = bytes.fromhex(self._ledger.state.genesis_place.digest)
        return renew_proof_message(
            fingerprint, offer.institution, offer.replaces_serial, offer.csr_der, offer.new_signing_key or b""
        )

    def _issue(self, offer: RenewalOffer, member: Member, newest: CertificateId) -> Enrolled:
        key = self._checked_key(offer, member)
        ports = self._ports
        pem = ports.authority.issue_institution(
            offer.csr_der, member.name, now=ports.clock.now(), days=ports.certificate_days
        )
        issued = certificate_id(pem)
        renewed = member.model_copy(update={"certificates": (newest, issued), "signing_key": key})
        change = Change("renew", member.name, _request(offer), renewed, certificate_pem=pem, replaces=newest.serial)
        index = ports.proposals.decide(change).index
        fields = {"institution": member.name, "serial": issued.serial, "ledger_index": index}
        log.info("certificate renewed", extra={**fields, "key_rotated": key != member.signing_key})
        return Enrolled(pem.decode(), index)

    def _checked_key(self, offer: RenewalOffer, member: Member) -> PublicKey:
        """The signing key from here on."""
        key = _new_key(offer)
        if key is None:
            return member.signing_key
        check_signing_key(self._ledger.state, key, besides=member.name)
        try:
            verify_raw(key, offer.new_proof or b"", self._message(offer))
        except BadSignature as err:
            raise InvalidInvitation(
                "The new signing key did not sign the request.", "Rotate again: llmasos-participant identity rotate."
            ) from err
        return key

    # --- revocation --------------------------------------------------------------------------------------------------

    def revoke(self, institution: str, reason: str) -> int:
        """End a membership, or withdraw an invitation that nobody accepted; the index of the roster that says so.

        Raises:
            ApprovalPending: institutions have to approve the revocation first; the same again says how far it is.
            UnknownObject: neither a member nor invited.
            UsageError: it is the last active operator.
        """
        state = self._ledger.state
        member = state.member(institution)
        if member is None:
            return self._withdraw(institution)
        if member.status == "active":
            expect_another_operator(state, institution)
            revoked = member.model_copy(update={"status": "revoked"})
            index = self._ports.proposals.decide(
                Change("revoke", institution, request_digest(institution), revoked)
            ).index
            log.warning(
                "institution revoked", extra={"institution": institution, "reason": reason, "ledger_index": index}
            )
        return _roster_index(self._ledger.state)

    def _withdraw(self, institution: str) -> int:
        with self._ports.database.transaction() as tx:
            withdrawn = tx.withdraw(institution)
            tx.drop_proposal("enrol", institution)
        self._ports.proposals.recount()
        if not withdrawn:
            raise UnknownObject(
                f"{institution} is neither a member nor invited.", "See who is: llmasos-coordinator institution list."
            )
        log.info("invitation withdrawn", extra={"institution": institution})
        return _roster_index(self._ledger.state)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Carry out what institutions that signed their leave are due; calling it again changes nothing.

        Raises:
            StorageFailure: the disk says no; what is missing is done at the next call.
        """
        for name, departure in self._ledger.state.departures.items():
            if departure.erased is None:
                self._settle(name, departure.place)
        self._ports.proposals.refresh()

    def _settle(self, name: str, left_at: Place) -> None:
        member = self._ledger.state.member(name)
        if member is not None and member.status == "active":
            state = self._ledger.state
            left = next_roster(state, (member.model_copy(update={"status": "left"}),))
            index = self._ledger.append(left, state.roster_place or state.genesis_place).index
            log.info("institution left", extra={"institution": name, "ledger_index": index})
        try:
            if not self._ports.eraser.erase(self._ledger.state, name):
                return  # an open round is to be made with its contribution: at that round's close
        except BlobError as err:
            raise StorageFailure(f"The deltas of {name} cannot be deleted: {err.message}") from err
        erased = Control(action="erased", issued_at=rfc3339(self._ports.clock.now()), reason=ERASED, institution=name)
        index = self._ledger.append(erased, left_at).index
        log.info("deltas deleted", extra={"institution": name, "ledger_index": index})


def expect_another_operator(state: LedgerState, leaving: str) -> None:
    """
    Raises:
        UsageError: without `leaving`, nobody could operate the consortium any more.
    """
    operators = [
        member.name
        for member in (state.roster.members if state.roster else ())
        if "operator" in member.roles and state.is_active(member.name)
    ]
    if operators == [leaving]:
        raise UsageError(
            f"{leaving} is the last active operator: after it nobody could invite or revoke.",
            "Make another one first: llmasos-coordinator operator invite NAME --role operator.",
        )


def _is_repeated(offer: RenewalOffer, member: Member, newest: CertificateId, stored: CertificateRow) -> bool:
    """Whether that certificate was issued for this very offer: its reply was lost on the way."""
    return (
        stored.replaces == offer.replaces_serial
        and requested_spki_sha256(offer.csr_der) == newest.spki_sha256
        and _new_key(offer) in (None, member.signing_key)
    )


def _request(offer: RenewalOffer) -> str:
    """What makes two offers the same: requests for one TLS key differ in their signatures."""
    spki = requested_spki_sha256(offer.csr_der)
    return request_digest(offer.replaces_serial, spki, offer.new_signing_key or b"")


def _new_key(offer: RenewalOffer) -> PublicKey | None:
    return PublicKey(scheme="ed25519", public=offer.new_signing_key.hex()) if offer.new_signing_key else None


def _not_signed(offer: RenewalOffer) -> BadSignature:
    return BadSignature(
        f"The request is not signed by a member called {offer.institution!r}.",
        "Renew from the home folder that joined; a lost signing key means a new invitation under a new name.",
    )


def _roster_index(state: LedgerState) -> int:
    return state.roster_place.index if state.roster_place else 0
