"""What others say of a run's models: attestations of auditors, releases."""

from __future__ import annotations

from common.errors import MalformedStatement
from common.ledger.state import LedgerState, Place
from common.statements.envelope import Statement


def later(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    raise MalformedStatement(f"Statements of kind {statement.kind} are not of this protocol version.")
