"""What stands beside rosters: invitations, and the certificates that were issued."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from common.errors import InvalidName, LLMasOSError
from common.identity.certificates import certificate_id, common_name, load_certificate
from common.ledger.state import LedgerState
from common.names import check_name
from common.statements.kinds import Member, Role, Roster
from common.verify.report import Finding, Outcome
from coordinator.rows.reading import failed, raw, rosters, seconds
from coordinator.store import tables
from coordinator.store.database import Database

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class _Named:
    """Who was in the roster of an index, and what the one above said of the same member."""

    member: Member
    before: Member | None


@dataclass(slots=True)
class _Rosters:
    """Members by (index, name) where a row asks for them, and every serial with the index that named it first."""

    asked: dict[tuple[int, str], _Named] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=dict)


def check_invitations(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Open ones are well formed and of nobody who is a member; redeemed ones are of whom their roster names."""
    rows = database.all_rows(tables.invitations)
    named = _read(database, state, {(row.roster_index, row.institution) for row in rows})
    for row in rows:
        for fault in _form(row):
            yield failed(f"The invitation of {row.institution} is not one that was ever made: {fault}.")
        redeemed = (row.redeemed_by, row.certificate_pem, row.roster_index)
        if redeemed == (None, None, None):
            if state.member(str(row.institution)) is not None:
                yield failed(f"{row.institution} is a member, and its invitation is open again.")
        else:
            yield from _redeemed(row, named.asked.get((row.roster_index, row.institution)))


def _form(row: Any) -> Iterator[str]:
    try:
        check_name(str(row.institution))
    except InvalidName:
        yield "the institution's name is none"
    if not _ID.fullmatch(str(row.id)) or not _DIGEST.fullmatch(str(row.secret_sha256)):
        yield "its id or its secret's digest is none"
    if not set(str(row.roles).split(",")) <= set(get_args(Role)):
        yield f"{row.roles!r} are no roles"
    if seconds(row.expires_at) is None:
        yield f"{row.expires_at!r} is no time"


def _redeemed(row: Any, named: _Named | None) -> Iterator[Finding]:
    if named is None or named.before is not None:
        text = f"The invitation of {row.institution} was redeemed, but no roster names it, or not first this one."
        yield failed(text, row.roster_index if isinstance(row.roster_index, int) else None)
        return
    if not _DIGEST.fullmatch(str(row.redeemed_by)):
        yield failed(f"The invitation of {row.institution} was redeemed by nobody's keys.", row.roster_index)
    said, roles = str(row.roles), ",".join(named.member.roles)
    if said != roles:
        text = f"The invitation of {row.institution} gave other roles than the roster says."
        yield failed(text, row.roster_index, roles, said)
    try:
        issued = certificate_id(raw(row.certificate_pem))
    except LLMasOSError as err:
        yield failed(f"The invitation of {row.institution} holds no certificate: {err.message}", row.roster_index)
        return
    if issued not in named.member.certificates:
        text = f"The invitation of {row.institution} holds another certificate than the roster names."
        yield failed(text, row.roster_index, named.member.certificates[-1].serial, issued.serial)


def check_certificates(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Each was issued by this consortium's authority to the member whose roster named it first; none is missing."""
    rows = {str(row.serial): row for row in database.all_rows(tables.certificates)}
    named = _read(database, state, {(row.roster_index, row.institution) for row in rows.values()})
    authority = x509.load_pem_x509_certificate(state.genesis.ca_certificate.encode())
    for serial, row in rows.items():
        entry = named.asked.get((row.roster_index, row.institution))
        for fault in _certificate_faults(row, serial, entry, authority):
            leaf = row.roster_index if isinstance(row.roster_index, int) else None
            yield failed(f"Certificate {serial} of {row.institution}: {fault}.", leaf)
    for invitation in database.all_rows(tables.invitations):
        if invitation.certificate_pem is not None and all(
            raw(row.pem) != raw(invitation.certificate_pem) for row in rows.values()
        ):
            yield failed(f"The certificate in the invitation of {invitation.institution} was issued to nobody.")
    for serial, index in named.serials.items():
        if serial not in rows:
            text = f"Certificate {serial} is not in the table: a row was deleted, or its release kept none."
            yield Finding(Outcome.GAPS, text, index, serial, "nothing")


def _certificate_faults(row: Any, serial: str, named: _Named | None, authority: x509.Certificate) -> Iterator[str]:
    try:
        certificate, issued = load_certificate(raw(row.pem)), certificate_id(raw(row.pem))
    except LLMasOSError as err:
        yield f"it is none: {err.message}"
        return
    if certificate.public_bytes(Encoding.PEM) != raw(row.pem):
        yield "it is not spelled as it was issued"
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        yield "this consortium's authority did not issue it"
    if issued.serial != serial or common_name(certificate) != row.institution:
        yield f"it is certificate {issued.serial} of {common_name(certificate)}"
    if named is None or issued not in named.member.certificates:
        yield "the roster of its index does not name it"
        return
    replaced = named.before.certificates[-1].serial if named.before and named.before.certificates else None
    if (named.before is not None and issued in named.before.certificates) or row.replaces != replaced:
        yield f"it replaced {replaced or 'none'} in the roster of its index, and the row says {row.replaces or 'none'}"


def _read(database: Database, state: LedgerState, asked: set[tuple[Any, Any]]) -> _Rosters:
    """One pass over all rosters, two of them in memory at a time."""
    found, above = _Rosters(), None
    wanted: dict[Any, list[str]] = {}
    for index, name in asked:
        wanted.setdefault(index, []).append(str(name))
    for index, roster in rosters(database, state):
        for name in wanted.get(index, ()):
            member = roster.member(name)
            if member is not None:
                found.asked[index, name] = _Named(member, above.member(name) if above else None)
        _serials(found, index, roster)
        above = roster
    return found


def _serials(found: _Rosters, index: int, roster: Roster) -> None:
    for member in roster.members:
        for certificate in member.certificates:
            found.serials.setdefault(certificate.serial, index)
