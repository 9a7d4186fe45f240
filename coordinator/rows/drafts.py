"""Drafts that await approvals, and the approvals that came."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from common.errors import LLMasOSError, RefusalError
from common.identity.certificates import certificate_id
from common.ledger.state import LedgerState
from common.statements.approvals import verify_approval
from common.statements.envelope import APPROVED_KINDS, Approval, UnverifiedStatement, parse, verify
from common.statements.kinds import Member, PlanStatement, Roster
from common.verify.report import Finding
from coordinator.rows.reading import failed, raw, seconds
from coordinator.store import tables
from coordinator.store.database import Database

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_proposals(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Each is what the coordinator signed, for the subject that it names, and stands in no ledger yet."""
    for row in database.all_rows(tables.proposals):
        where = f"The draft {str(row.payload_sha256)[:16]}… for {row.purpose} {row.subject}"
        try:
            draft = parse(raw(row.envelope))
            verify(draft, state.genesis.coordinator_key)
        except RefusalError as err:
            yield failed(f"{where} is not what the coordinator signed: {err.message} ({err.code})")
            continue
        for fault in _faults(database, state, row, draft):
            yield failed(f"{where}: {fault}.")


def _faults(database: Database, state: LedgerState, row: Any, draft: UnverifiedStatement) -> Iterator[str]:
    if draft.digest != row.payload_sha256:
        yield f"it is kept under another digest than its own, {draft.digest[:16]}…"
    if draft.kind not in APPROVED_KINDS or draft.approvals:
        yield f"it is a {draft.kind} with {len(draft.approvals)} approvals, expected one that awaits them"
    if draft.digest in state.places:
        yield f"it stands in the ledger already, at {state.places[draft.digest].index}"
    if seconds(row.proposed_at) is None or not _DIGEST.fullmatch(str(row.request)):
        yield "its time or its request's digest is none"
    said = draft.predicate
    if isinstance(said, PlanStatement):
        if (row.purpose, row.subject) != ("run", said.run):
            yield f"it is the plan of {said.run}"
    elif isinstance(said, Roster):
        yield from _member_faults(database, state, row, said)


def _member_faults(database: Database, state: LedgerState, row: Any, roster: Roster) -> Iterator[str]:
    after, before = roster.member(str(row.subject)), state.member(str(row.subject))
    if row.purpose != _purpose(before, after):
        yield f"what it changes is {_purpose(before, after) or 'nothing'} of that name"
    if after is None or after == before:
        return
    wanted = after.certificates[-1].serial if row.purpose in ("enrol", "renew") and after.certificates else None
    try:
        found = certificate_id(raw(row.certificate_pem)).serial if row.certificate_pem is not None else None
    except LLMasOSError:
        found = "no certificate"
    if found != wanted:
        yield f"the certificate beside it is {found or 'none'}, expected {wanted or 'none'}"
    replaced = before.certificates[-1].serial if row.purpose == "renew" and before and before.certificates else None
    if row.replaces != replaced:
        yield f"it replaces certificate {row.replaces or 'none'}, expected {replaced or 'none'}"
    invited = None if row.invitation is None else database.invitation(str(row.invitation))
    if (row.purpose == "enrol") != (invited is not None and invited.institution == row.subject):
        yield "its invitation is not one of that institution"
    if (row.purpose == "enrol") != (row.redeemed_by is not None and bool(_DIGEST.fullmatch(str(row.redeemed_by)))):
        yield "it does not say by which keys the invitation was redeemed"


def _purpose(before: Member | None, after: Member | None) -> str:
    if after is None or after == before:
        return ""
    if before is None:
        return "enrol"
    return "revoke" if after.status == "revoked" else "renew"


def check_approvals(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Each is the signature of the institution that it names, under a draft that is there."""
    drafts = {row.payload_sha256: raw(row.envelope) for row in database.all_rows(tables.proposals)}
    for row in database.all_rows(tables.approvals):
        where = f"The approval of {row.institution} under {str(row.payload_sha256)[:16]}…"
        member, envelope = state.member(str(row.institution)), drafts.get(row.payload_sha256)
        if member is None or envelope is None:
            yield failed(f"{where} is of no member, or of no draft that is kept.")
            continue
        if seconds(row.approved_at) is None:
            yield failed(f"{where} was given at no time.", got=row.approved_at)
        try:
            approval = Approval(str(row.keyid), raw(row.signature))
            verify_approval(parse(envelope).payload, approval, member.name, member.signing_key)
        except RefusalError as err:
            yield failed(f"{where} does not hold: {err.message} ({err.code})")
