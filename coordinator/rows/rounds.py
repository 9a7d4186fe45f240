"""What stands beside rounds: why they took nothing more, and what institutions measured."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.verify.report import Finding
from common.verify.times import TOLERANCE_SECONDS
from coordinator.rows.reading import failed, raw, row_at, seconds
from coordinator.store import tables
from coordinator.store.database import Database, Seal

SEAL_REASONS = frozenset({"all-contributed", "enough-contributed", "deadline-passed", "leases-lapsed"})
UNSEALED = frozenset({"aborted", "rolled-back"})
"""What rounds are closed for that an operator ended."""


def check_seals(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Each is of a round, for the reason for which it was closed, between its opening and its close; none is missing."""
    seals = database.seals()
    for opening, seal in seals.items():
        found = state.round_by_opening(str(opening))
        if found is None:
            yield failed(f"A seal is of a round that was never opened: {str(opening)[:16]}….", got=seal.reason)
        else:
            yield from _seal(database, *found, seal)
    for run in state.runs.values():
        for record in run.rounds:
            closed = record.closed
            if closed is not None and closed.reason not in UNSEALED and record.place.digest not in seals:
                yield failed(f"{_where(run, record)} was closed, and its seal is not there.", record.place.index)


def _seal(database: Database, run: RunRecord, record: RoundRecord, seal: Seal) -> Iterator[Finding]:
    closed, leaf = record.closed, record.place.index
    if closed is not None and closed.outcome == "committed" and closed.reason != seal.reason:
        text = f"{_where(run, record)} was closed for another reason than it was sealed for."
        yield failed(text, leaf, closed.reason, seal.reason)
    elif seal.reason not in SEAL_REASONS:
        text = f"{_where(run, record)} was sealed for a reason that there is none of."
        yield failed(text, leaf, ", ".join(sorted(SEAL_REASONS)), seal.reason)
    at = seconds(seal.sealed_at)
    first, last = _appended(database, record.place), _appended(database, record.closed_place)
    early = at is None or (first is not None and at < first - TOLERANCE_SECONDS)
    if early or (last is not None and at is not None and at > last + TOLERANCE_SECONDS):
        text = f"{_where(run, record)} was sealed at a time that is not between its opening and its close."
        yield failed(text, leaf, got=seal.sealed_at)


def check_metrics(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Rows may be deleted, and no row may be another than was committed to."""
    committed = {
        entry.place.digest: (run.run, entry.place.index, entry.contribution.metrics_commitment)
        for run in state.runs.values()
        for record in run.rounds
        for entry in record.contributions.values()
    }
    for row in database.all_rows(tables.metrics):
        run, leaf, commitment = committed.get(str(row.contribution), ("", None, None))
        found = hashlib.sha256(raw(row.salt) + raw(row.content)).hexdigest()
        whole = isinstance(row.salt, bytes) and isinstance(row.content, bytes) and len(row.salt) == 32
        if commitment is None or not whole or not hmac.compare_digest(found, commitment):
            text = f"Metrics in the table of {row.run} are not what their contribution committed to."
            yield failed(text, leaf, commitment or "no such contribution", found)
        elif row.run != run:
            yield failed("Metrics stand under another run than their contribution's.", leaf, run, row.run)


def _appended(database: Database, place: Place | None) -> float | None:
    row = row_at(database, place.index) if place is not None else None
    return seconds(row.appended_at) if row is not None else None


def _where(run: RunRecord, record: RoundRecord) -> str:
    return f"Round {record.number} of {run.run}"
