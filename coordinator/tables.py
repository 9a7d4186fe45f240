"""The coordinator's own tables against the ledger's projection: whoever edits a row by hand is found here."""

from __future__ import annotations

import hashlib
import hmac

from common.errors import RefusalError
from common.ledger.state import LedgerState
from common.statements.envelope import parse
from common.verify.report import Check, Finding, Outcome
from coordinator.store.database import Database, LedgerRow


def check_tables(database: Database, state: LedgerState) -> Check:
    """Every row beside the ledger says what the ledger says, and nothing more."""
    findings = [
        *_ledger(database),
        *_seals(database, state),
        *_metrics(database, state),
        *_invitations(database, state),
    ]
    question = "Do the coordinator's tables say what the ledger says?"
    return Check("tables", question, "ledger, seals, metrics, invitations", tuple(findings))


def _ledger(database: Database) -> list[Finding]:
    findings: list[Finding] = []
    size = 0
    while rows := database.envelopes(size):
        for row in rows:
            findings += _row(row, size)
            size += 1
        if rows[-1].index != size - 1:
            break
    return findings


def _row(row: LedgerRow, expected_index: int) -> list[Finding]:
    if row.index != expected_index:
        text = "The ledger's table lacks a row."
        return [Finding(Outcome.FAILED, text, expected_index, str(expected_index), str(row.index))]
    try:
        statement = parse(_raw(row.envelope))
    except RefusalError as err:
        return [Finding(Outcome.FAILED, f"A row holds no statement: {err.message}", row.index)]
    said, found = (row.digest, row.kind), (statement.digest, statement.kind.value)
    if said != found:
        text = "A row's digest or kind is not its envelope's."
        return [Finding(Outcome.FAILED, text, row.index, " ".join(found), " ".join(said))]
    return []


def _seals(database: Database, state: LedgerState) -> list[Finding]:
    findings = []
    for opening, seal in database.seals().items():
        found = state.round_by_opening(opening)
        if found is None:
            text = f"A seal is of a round that was never opened: {opening[:16]}…"
            findings.append(Finding(Outcome.FAILED, text, got=seal.reason))
        elif (closed := found[1].closed) is not None and closed.outcome == "committed" and closed.reason != seal.reason:
            text = f"Round {found[1].number} of {found[0].run} was closed for another reason than it was sealed for."
            findings.append(Finding(Outcome.FAILED, text, found[1].place.index, closed.reason, seal.reason))
    return findings


def _metrics(database: Database, state: LedgerState) -> list[Finding]:
    findings = []
    for run in state.runs.values():
        committed = {
            entry.place.digest: (entry.place.index, entry.contribution.metrics_commitment)
            for record in run.rounds
            for entry in record.contributions.values()
        }
        for digest, row in database.metrics(run.run).items():
            index, commitment = committed.get(digest, (None, None))
            found = hashlib.sha256(_raw(row.salt) + _raw(row.content)).hexdigest()
            if commitment is None or not hmac.compare_digest(found, commitment):
                text = f"Metrics in the table of {run.run} are not what their contribution committed to."
                findings.append(Finding(Outcome.FAILED, text, index, commitment or "no such contribution", found))
    return findings


def _invitations(database: Database, state: LedgerState) -> list[Finding]:
    findings = []
    for row in database.invitations():
        if row.roster_index is None:
            continue
        member = state.member(row.institution)
        if member is None or not 0 <= row.roster_index < state.size:
            text = f"The invitation of {row.institution} was redeemed, but no roster names it."
            findings.append(Finding(Outcome.FAILED, text, row.roster_index))
    return findings


def _raw(value: bytes | str) -> bytes:
    """A column's bytes: SQLite gives text back where a hand wrote text."""
    return value if isinstance(value, bytes) else value.encode()
