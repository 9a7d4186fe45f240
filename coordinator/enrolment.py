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
from common.ledger.state import Place
from common.logs import get_logger
from common.names import check_name
from common.statements.kinds import CertificateId, Member, PublicKey, Role, Roster
from coordinator.ledger import Ledger
from coordinator.ports import Enrolled, EnrolmentOffer
from coordinator.store.database import Database, InvitationRow

log = get_logger(__name__)

WEAK_KEYS = frozenset(
    bytes.fromhex(key)
    for key in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Ed25519 points of small order, sign bit cleared: for such a key anybody makes signatures that verify, so whoever enrolled
it could disown every statement. Source: Bernstein and others, eprint 2020/1244; the list is libsodium's."""


RESERVED_NAMES = frozenset({"coordinator", "operator"})
"""Who people would take the holder for: the coordinator's own certificate bears the first, the founding member the second."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """What invitations and certificates say."""

    certificate_days: int
    invitation_hours: int
    enrolment_address: Callable[[], str]
    work_address: Callable[[], str]


class EnrolmentDesk:
    """Makes invitations and redeems them."""

    def __init__(
        self, ledger: Ledger, database: Database, authority: Authority, clock: Clock, settings: EnrolmentSettings
    ) -> None:
        self._ledger = ledger
        self._database = database
        self._authority = authority
        self._clock = clock
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
            InvalidInvitation: unknown, wrong secret, or no proof that the asker holds the signing key.
            InvitationExpired, InvitationUsed: too late, or redeemed with other keys.
        """
        row = self._database.invitation(offer.invitation_id)
        if row is None or not hmac.compare_digest(row.secret_sha256, secret_hash(offer.secret)):
            raise InvalidInvitation("The invitation is not known here, or its secret is wrong.")
        self._check_proof(offer)
        redeemer = sha256(offer.signing_key + offer.csr_der + (offer.encryption_key or b"")).hexdigest()
        if row.redeemed_by is not None:
            return _already_redeemed(row, redeemer)
        if self._clock.now() >= parse_rfc3339(row.expires_at):
            raise InvitationExpired(f"The invitation of {row.institution} expired at {row.expires_at}.")
        return self._admit(row, offer, redeemer)

    def _check_proof(self, offer: EnrolmentOffer) -> None:
        if offer.signing_key[:31] + bytes(byte & 0x7F for byte in offer.signing_key[31:]) in WEAK_KEYS:
            raise InvalidInvitation("The signing key is one that anybody can sign for.", "Join again with a new key.")
        fingerprint = bytes.fromhex(self._ledger.state.genesis_place.digest)
        message = enrol_proof_message(fingerprint, offer.invitation_id, offer.csr_der, offer.encryption_key or b"")
        try:
            verify_raw(PublicKey(scheme="ed25519", public=offer.signing_key.hex()), offer.proof, message)
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
        index = self._ledger.state.size
        self._append_member(
            member, lambda tx: tx.redeem(row.id, redeemed_by=redeemer, certificate_pem=pem, roster_index=index)
        )
        log.info("institution enrolled", extra={"institution": row.institution, "ledger_index": index})
        return Enrolled(pem.decode(), index)

    def _append_member(self, member: Member, beside: Callable[..., None]) -> Place:
        state = self._ledger.state
        others = state.roster.members if state.roster else ()
        if any(other.signing_key == member.signing_key for other in others):
            raise InvalidInvitation(
                "Another member holds this signing key already.",
                "Join with a home folder of its own for each institution.",
            )
        roster = Roster(
            version=(state.roster.version if state.roster else 0) + 1,
            members=tuple(sorted((*others, member), key=lambda each: each.name)),
        )
        return self._ledger.append(roster, state.roster_place or state.genesis_place, beside)


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
