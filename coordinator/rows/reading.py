"""Rows as a hand may have left them: SQLite keeps any type in any column, so nothing of a row is taken for granted."""

from __future__ import annotations

from collections.abc import Iterator

from common.clock import parse_rfc3339
from common.errors import RefusalError
from common.ledger.state import LedgerState
from common.statements.envelope import UnverifiedStatement, parse
from common.statements.kinds import Kind, Roster
from common.verify.report import Finding, Outcome
from coordinator.store.database import Database, LedgerRow


def raw(value: object) -> bytes:
    """A column's bytes: SQLite gives back whatever type a hand wrote."""
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode(errors="replace")


def failed(text: str, leaf: int | None = None, expected: object = "", got: object = "") -> Finding:
    """Something is not as the ledger says it must be."""
    return Finding(Outcome.FAILED, text, leaf, str(expected), str(got))


def seconds(value: object) -> float | None:
    """A time as it stands in a column, in seconds since the epoch; None where it is none."""
    try:
        return parse_rfc3339(str(value)).timestamp()
    except (ValueError, OverflowError):
        return None


def row_at(database: Database, index: int) -> LedgerRow | None:
    """The ledger's row of that index, if it is there."""
    found = database.envelopes(index, limit=1)
    return found[0] if found and found[0].index == index else None


def statement_in(row: LedgerRow | None) -> UnverifiedStatement | None:
    """What a row's envelope says, if it says anything."""
    try:
        return parse(raw(row.envelope)) if row is not None else None
    except RefusalError:
        return None


def rosters(database: Database, state: LedgerState) -> Iterator[tuple[int, Roster]]:
    """Every roster that stands in the ledger, by index, one at a time."""
    for index in sorted(place.index for place in state.places.values() if place.kind is Kind.ROSTER):
        statement = statement_in(row_at(database, index))
        if statement is not None and isinstance(statement.predicate, Roster):
            yield index, statement.predicate
