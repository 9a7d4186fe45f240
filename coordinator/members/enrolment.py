"""Invitations and their redemption: how an institution gets into the roster (docs/protocol.md#enrolment).

Runs on the engine's thread, since it appends roster statements. The coordinator keeps only a hash of an invitation's secret.
"""

from __future__ import annotations

import hmac
import secrets as system_secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import cast

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import (
    AlreadyInitialised,
    BadSignature,
    InvalidInvitation,
    InvalidName,
    InvitationExpired,
    InvitationUsed,
)
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, enrol_proof_message
from common.identity.invitation import SECRET_BYTES, Invitation, secret_hash
from common.identity.keys import verify_raw
from common.logs import get_logger
from common.names import check_name
from common.statements.kinds import CertificateId, Member, PublicKey, Role, Roster
from coordinator.ledger import Ledger
from coordinator.members.changes import Change
from coordinator.members.proposals import Proposals
from coordinator.members.rosters import check_signing_key
from coordinator.ports import Enrolled, EnrolmentOffer
from coordinator.store.database import Database, InvitationRow

log = get_logger(__name__)

RESERVED_NAMES = frozenset({"coordinator", "operator"})
"""Who people would take the holder for: the coordinator's own certificate bears the first, the founding member the second."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """What invitations and certificates say."""

    certificate_days: int
    invitation_hours: int
    enrolment_address: Callable[[], str]
    work_address: Callable[[], str]


@dataclass(frozen=True, slots=True)
class EnrolmentPorts:
    """What invitations and their redemption act on."""

    ledger: Ledger
    database: Database
    authority: Authority
    proposals: Proposals
    clock: Clock


class EnrolmentDesk:
    """Makes invitations and redeems them."""

    def __init__(self, ports: EnrolmentPorts, settings: EnrolmentSettings) -> None:
        self._ledger = ports.ledger
        self._database = ports.database
        self._authority = ports.authority
        self._proposals = ports.proposals
        self._clock = ports.clock
        self._settings = settings

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...], genesis: bytes) -> str:
        """An armoured invitation for an institution that is not a member yet; withdraws its open ones.

        Args:
            expires_hours: 0 is the coordinator's `invitation_hours`.

        Raises:
            InvalidName: the name is not one, or reserved.
            AlreadyInitialised: it is a member.
        """
        check_name(institution)
        if self._ledger.state.member(institution) is not None:
            raise AlreadyInitialised(
                f"{institution} is a member of {self._ledger.state.genesis.consortium} already.",
                "Choose another name; a name is never given twice.",
            )
        if institution in RESERVED_NAMES:
            raise InvalidName(
                f"{institution!r} is no institution's name here: it says another's role.", "Choose another."
            )
        secret = system_secrets.token_bytes(SECRET_BYTES)
        expires_at = rfc3339(self._clock.now() + timedelta(hours=expires_hours or self._settings.invitation_hours))
        row = InvitationRow(
            id=system_secrets.token_hex(16),
            institution=institution,
            roles=",".join(roles),
            secret_sha256=secret_hash(secret),
            expires_at=expires_at,
        )
        with self._database.transaction() as tx:
            tx.invite(row)
            tx.drop_proposal("enrol", institution)
        self._proposals.recount()
        log.info("invitation made", extra={"institution": institution, "expires_at": expires_at})
        return Invitation(
            institution=institution,
            invitation_id=row.id,
            secret=secret,
            enrolment_address=self._settings.enrolment_address(),
            work_address=self._settings.work_address(),
            expires_at=expires_at,
            genesis=genesis,
        ).armoured()

    def enrol(self, offer: EnrolmentOffer) -> Enrolled:
        """Redeem an invitation: a certificate, and a place in the roster. The same keys may ask again.

        Raises:
            ApprovalPending: institutions have to approve it first; the same keys ask again until they did.
            InvalidInvitation: unknown, wrong secret, or no proof that the asker holds the signing key.
            InvitationExpired, InvitationUsed: too late, or redeemed with other keys.
        """
        row = self._database.invitation(offer.invitation_id)
        # The same work for an id that is not known: time tells nobody which part of a guess was right.
        stored = row.secret_sha256 if row is not None else "0" * 64
        if not hmac.compare_digest(stored, secret_hash(offer.secret)) or row is None:
            raise InvalidInvitation("The invitation is not known here, or its secret is wrong.")
        self._check_proof(offer, row.institution)
        redeemer = sha256(offer.signing_key + offer.csr_der + (offer.encryption_key or b"")).hexdigest()
        if row.redeemed_by is not None:
            return _already_redeemed(row, redeemer)
        if self._proposals.resume("enrol", row.institution, redeemer) is not None:
            return self.enrol(offer)
        if self._clock.now() >= parse_rfc3339(row.expires_at):
            raise InvitationExpired(f"The invitation of {row.institution} expired at {row.expires_at}.")
        return self._admit(row, offer, redeemer)

    def _check_proof(self, offer: EnrolmentOffer, institution: str) -> None:
        fingerprint = bytes.fromhex(self._ledger.state.genesis_place.digest)
        message = enrol_proof_message(fingerprint, offer.invitation_id, offer.csr_der, offer.encryption_key or b"")
        try:
            key = PublicKey(scheme="ed25519", public=offer.signing_key.hex())
            check_signing_key(self._ledger.state, key, besides=institution)
            verify_raw(key, offer.proof, message)
        except (BadSignature, ValueError) as err:  # ValueError: not the length of a key
            raise InvalidInvitation(
                "The proof of possession does not verify under the signing key that was sent.",
                "Join again; the participant signs its request with its own key.",
            ) from err

    def _admit(self, row: InvitationRow, offer: EnrolmentOffer, redeemer: str) -> Enrolled:
        pem = self._authority.issue_institution(
            offer.csr_der, row.institution, now=self._clock.now(), days=self._settings.certificate_days
        )
        roles = cast(tuple[Role, ...], tuple(row.roles.split(",")))
        member = Member(
            name=row.institution,
            signing_key=PublicKey(scheme="ed25519", public=offer.signing_key.hex()),
            encryption_key=_encryption_key(offer.encryption_key),
            roles=roles,
            certificates=(certificate_id(pem),),
        )
        change = Change(
            purpose="enrol",
            subject=row.institution,
            request=redeemer,
            content=member,
            certificate_pem=pem,
            invitation=row.id,
            redeemed_by=redeemer,
        )
        index = self._proposals.decide(change).index
        log.info("institution enrolled", extra={"institution": row.institution, "ledger_index": index})
        return Enrolled(pem.decode(), index)


def first_roster(operator: Member) -> Roster:
    """The roster that `init` writes: the operator alone."""
    return Roster(version=1, members=(operator,))


def operator_member(signing_key: PublicKey, certificate: CertificateId) -> Member:
    """The operator's roster entry."""
    return Member(name="operator", signing_key=signing_key, roles=("operator",), certificates=(certificate,))


def _already_redeemed(row: InvitationRow, redeemer: str) -> Enrolled:
    if row.redeemed_by != redeemer or row.certificate_pem is None or row.roster_index is None:
        raise InvitationUsed(f"The invitation of {row.institution} was redeemed with other keys.")
    return Enrolled(row.certificate_pem.decode(), row.roster_index)


def _encryption_key(raw: bytes | None) -> PublicKey | None:
    return PublicKey(scheme="x25519", public=raw.hex()) if raw else None
