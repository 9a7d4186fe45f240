"""Changes of membership after enrolment: renewal, rotation, revocation, leaving (docs/protocol.md#membership).

    renew    certificates (newest, new), and the signing key if it changes     asked for under the present signing key
    revoke   status revoked                                                    an operator says so
    leave    status left ─▶ its deltas deleted ─▶ `erased`                     the institution signed it; `settle` does it

Runs on the engine's thread, since it appends roster statements. Each step is durable by itself and found again from the ledger,
so a process that was killed between two of them goes on at its next start.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from common.identity.keys import is_weak, verify_raw
from common.ledger.state import LedgerState, Place
from common.logs import get_logger
from common.statements.kinds import CertificateId, Control, Member, PublicKey, Roster
from coordinator.ledger import Beside, Ledger
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
            BadSignature: no member of that name signed this; whoever cannot sign learns no more.
            UnknownCertificate: the member is no longer active, or replaces another certificate than its newest.
            InvalidInvitation: the new signing key is weak, another member's, or did not sign.
            MalformedMessage: the request holds no P-256 key, or is not signed by it.
        """
        member, newest = self._signer(offer)
        stored = self._ports.database.certificate(newest.serial)
        if stored is not None and _is_repeated(offer, member, newest, stored):
            return Enrolled(stored.pem.decode(), stored.roster_index)
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
        ports, state = self._ports, self._ledger.state
        pem = ports.authority.issue_institution(
            offer.csr_der, member.name, now=ports.clock.now(), days=ports.certificate_days
        )
        issued, index = certificate_id(pem), state.size
        renewed = member.model_copy(update={"certificates": (newest, issued), "signing_key": key})
        row = CertificateRow(issued.serial, member.name, pem, index, newest.serial)
        append_members(self._ledger, (renewed,), lambda tx: tx.keep_certificate(row))
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
            index = append_members(self._ledger, (revoked,)).index
            log.warning(
                "institution revoked", extra={"institution": institution, "reason": reason, "ledger_index": index}
            )
        return _roster_index(self._ledger.state)

    def _withdraw(self, institution: str) -> int:
        with self._ports.database.transaction() as tx:
            withdrawn = tx.withdraw(institution)
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

    def _settle(self, name: str, left_at: Place) -> None:
        member = self._ledger.state.member(name)
        if member is not None and member.status == "active":
            index = append_members(self._ledger, (member.model_copy(update={"status": "left"}),)).index
            log.info("institution left", extra={"institution": name, "ledger_index": index})
        try:
            if not self._ports.eraser.erase(self._ledger.state, name):
                return  # an open round is to be made with its contribution: at that round's close
        except BlobError as err:
            raise StorageFailure(f"The deltas of {name} cannot be deleted: {err.message}") from err
        erased = Control(action="erased", issued_at=rfc3339(self._ports.clock.now()), reason=ERASED, institution=name)
        index = self._ledger.append(erased, left_at).index
        log.info("deltas deleted", extra={"institution": name, "ledger_index": index})


def append_members(ledger: Ledger, changed: Iterable[Member], beside: Beside | None = None) -> Place:
    """The next roster: these members as given, the others as they were."""
    state = ledger.state
    members = {member.name: member for member in state.roster.members} if state.roster else {}
    members |= {member.name: member for member in changed}
    roster = Roster(
        version=(state.roster.version if state.roster else 0) + 1,
        members=tuple(members[name] for name in sorted(members)),
    )
    return ledger.append(roster, state.roster_place or state.genesis_place, beside)


def check_signing_key(state: LedgerState, key: PublicKey, *, besides: str) -> None:
    """
    Raises:
        InvalidInvitation: anybody can sign for this key, or another member than `besides` holds it.
    """
    if is_weak(key):
        raise InvalidInvitation("The signing key is one that anybody can sign for.", "Try again with a new key.")
    others = state.roster.members if state.roster else ()
    if any(other.signing_key == key for other in others if other.name != besides):
        raise InvalidInvitation(
            "Another member holds this signing key already.",
            "Use a home folder of its own for each institution.",
        )


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


def _new_key(offer: RenewalOffer) -> PublicKey | None:
    return PublicKey(scheme="ed25519", public=offer.new_signing_key.hex()) if offer.new_signing_key else None


def _not_signed(offer: RenewalOffer) -> BadSignature:
    return BadSignature(
        f"The request is not signed by a member called {offer.institution!r}.",
        "Renew from the home folder that joined; a lost signing key means a new invitation under a new name.",
    )


def _roster_index(state: LedgerState) -> int:
    return state.roster_place.index if state.roster_place else 0
