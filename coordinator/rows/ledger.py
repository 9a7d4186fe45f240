"""The ledger's own columns, which no signature covers: index, digest, kind, and when a row was written."""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import RefusalError
from common.ledger.state import LedgerState
from common.statements.envelope import UnverifiedStatement, parse
from common.statements.kinds import Control, Genesis, signing_institution
from common.verify.report import Finding, Outcome
from common.verify.times import TOLERANCE_SECONDS, moment
from coordinator.rows.reading import failed, raw, seconds
from coordinator.store import tables
from coordinator.store.database import Database, LedgerRow


def check_ledger(database: Database, state: LedgerState) -> Iterator[Finding]:
    """Dense from 0, each row what its envelope is, times in their order and where statements say their own."""
    hidden = database.rows_below_zero()
    if hidden:
        yield failed("The ledger's table has rows before entry 0, where no reader looks.", None, 0, hidden)
    index, newest, claims = 0, float("-inf"), _openings(state)
    while rows := database.envelopes(index):
        for row in rows:
            yield from _row(row, index, claims.get(index))
            at = seconds(row.appended_at)
            if at is not None and at < newest:
                yield _went_back(row, newest - at)
            newest = newest if at is None else at
            index += 1
        if rows[-1].index != index - 1:
            return
    if index != state.size:
        yield failed(
            "The ledger's table has another number of rows than follow from each other.", None, state.size, index
        )


def check_schema(database: Database, state: LedgerState) -> Iterator[Finding]:
    """The version that this release writes; opening the database brings an older one up to it. No tables but tables."""
    versions = [row.version for row in database.all_rows(tables.schema)]
    if versions != [tables.SCHEMA_VERSION]:
        text = "The schema's version is not the one row that this release wrote."
        yield failed(text, None, [tables.SCHEMA_VERSION], versions)
    for what in database.triggers_and_views():
        yield failed(f"The database has the {what}, which no release made: it can change what is written or read.")


def _openings(state: LedgerState) -> dict[int, float]:
    """When rounds were opened, by their own word: seconds since the epoch by index."""
    found: dict[int, float] = {}
    for run in state.runs.values():
        for record in run.rounds:
            until = seconds(record.opened.stages[-1].deadline)
            if until is not None:
                found[record.place.index] = until - run.statement.plan.deadline_seconds
    return found


def _row(row: LedgerRow, index: int, opened: float | None) -> Iterator[Finding]:
    if row.index != index:
        yield failed("The ledger's table lacks a row.", index, index, row.index)
        return
    stored: object = row.envelope
    if not isinstance(stored, bytes):
        yield failed("A row's envelope is not bytes any more.", index, "bytes", type(stored).__name__)
    try:
        statement = parse(raw(row.envelope))
    except RefusalError as err:
        yield failed(f"A row holds no statement: {err.message}", index)
        return
    found, said = (statement.digest, statement.kind.value), (str(row.digest), str(row.kind))
    if said != found:
        yield failed("A row's digest or kind is not its envelope's.", index, " ".join(found), " ".join(said))
    yield from _time(row, statement, opened)


def _time(row: LedgerRow, statement: UnverifiedStatement, opened: float | None) -> Iterator[Finding]:
    at, said = seconds(row.appended_at), statement.predicate
    if at is None:
        yield failed("A row's time is none.", row.index, "a time as 2026-11-21T22:12:00.000Z", row.appended_at)
        return
    claimed = opened
    if isinstance(said, Control) and signing_institution(said) is None:
        claimed = seconds(said.issued_at)
    elif isinstance(said, Genesis):
        claimed = seconds(said.created_at)
    if claimed is not None and abs(at - claimed) > TOLERANCE_SECONDS:
        text = (
            f"A row was written at another time than its {statement.kind} claims, by more than {TOLERANCE_SECONDS} s."
        )
        yield failed(text, row.index, moment(claimed), row.appended_at)


def _went_back(row: LedgerRow, by: float) -> Finding:
    """Clocks are set back by little; more is a hand."""
    outcome = Outcome.FAILED if by > TOLERANCE_SECONDS else Outcome.GAPS
    text = f"A row's time is {by:,.3f} s before the one of the row above: a clock was set back, or a time was changed."
    return Finding(outcome, text, row.index, got=str(row.appended_at))
