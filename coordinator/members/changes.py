"""Changes that institutions may have to approve: what each is for, what is written beside its statement, and whether it still
makes sense when the roster below it has moved on.

    purpose   subject       content                                         beside the statement
    enrol     institution   the new member                                  invitation redeemed, certificate kept
    renew     institution   the member with a new key and certificate       certificate kept
    revoke    institution   the member, revoked
    run       run           the plan
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal, cast

from common import strict_json
from common.errors import InvalidInvitation, StorageFailure
from common.identity.certificates import certificate_id
from common.ledger.state import LedgerState
from common.statements.envelope import parse
from common.statements.kinds import Member, PlanStatement, Roster
from coordinator.members.rosters import check_signing_key, next_roster
from coordinator.store.database import CertificateRow, Transaction
from coordinator.store.proposals import ProposalRow

Purpose = Literal["enrol", "renew", "revoke", "run"]

_WORDS = {
    "enrol": "The admission of {subject}",
    "renew": "The new signing key of {subject}",
    "revoke": "The revocation of {subject}",
    "run": "The plan of run {subject}",
}


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody asked for."""

    purpose: Purpose
    subject: str
    request: str
    """Digest of what was asked for: the same again is the same change."""
    content: Member | PlanStatement
    certificate_pem: bytes | None = None
    replaces: str | None = None
    """Serial of the certificate that this one takes over from."""
    invitation: str | None = None
    redeemed_by: str | None = None

    def predicate(self, state: LedgerState) -> Roster | PlanStatement:
        """What the statement says that follows this state."""
        return next_roster(state, (self.content,)) if isinstance(self.content, Member) else self.content

    def write(self, tx: Transaction, index: int) -> None:
        """What belongs beside the statement at that index; a draft for the same subject is none any more."""
        tx.drop_proposal(self.purpose, self.subject)
        if self.certificate_pem is None:
            return
        serial = certificate_id(self.certificate_pem).serial
        tx.keep_certificate(CertificateRow(serial, self.subject, self.certificate_pem, index, self.replaces))
        if self.invitation is not None:
            tx.redeem(
                self.invitation,
                redeemed_by=self.redeemed_by or "",
                certificate_pem=self.certificate_pem,
                roster_index=index,
            )


def request_digest(*parts: bytes | str) -> str:
    """What `Change.request` holds."""
    return sha256(strict_json.dumps([part if isinstance(part, str) else part.hex() for part in parts])).hexdigest()


def in_words(purpose: str, subject: str) -> str:
    """The beginning of a sentence."""
    return _WORDS[purpose].format(subject=subject)


def change_of(row: ProposalRow) -> Change:
    """The change that a draft was made for.

    Raises:
        StorageFailure: its row is not what was written.
    """
    predicate = parse(row.envelope).predicate
    if isinstance(predicate, Roster):
        member = predicate.member(row.subject)
        if member is None:
            raise StorageFailure(
                f"The draft for {row.purpose} {row.subject} does not name its subject: a hand changed it."
            )
        content: Member | PlanStatement = member
    else:
        content = cast(PlanStatement, predicate)
    return Change(
        purpose=cast(Purpose, row.purpose),
        subject=row.subject,
        request=row.request,
        content=content,
        certificate_pem=row.certificate_pem,
        replaces=row.replaces,
        invitation=row.invitation,
        redeemed_by=row.redeemed_by,
    )


def change_again(change: Change, state: LedgerState) -> Change | None:
    """The same change over a newer roster; None where it makes no sense any more, and whoever wants it asks anew."""
    content = change.content
    if not isinstance(content, Member):
        return None if content.run in state.runs else change
    current = state.member(change.subject)
    if change.purpose == "enrol":
        return change if current is None and _has_a_key_of_its_own(content, state) else None
    if current is None or not state.is_active(current.name):
        return None
    if change.purpose == "revoke":
        return replace(change, content=current.model_copy(update={"status": "revoked"}))
    newest = current.certificates[-1].serial if current.certificates else None
    return change if newest == change.replaces and _has_a_key_of_its_own(content, state) else None


def _has_a_key_of_its_own(member: Member, state: LedgerState) -> bool:
    try:
        check_signing_key(state, member.signing_key, besides=member.name)
    except InvalidInvitation:
        return False
    return True
