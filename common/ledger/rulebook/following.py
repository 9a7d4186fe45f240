"""What all rules ask: which statement this one follows, and which run it is about."""

from __future__ import annotations

from dataclasses import replace

from common.errors import RoundNotOpen, WrongParent
from common.ledger.state import LedgerState, Place, RunRecord, with_entry
from common.statements.envelope import Draft, Parent, Statement


def follows(statement: Statement | Draft, parent: Place) -> None:
    expected = Parent(parent.kind.value, parent.digest)
    if statement.parent != expected:
        raise WrongParent(
            f"A {statement.kind} names {statement.parent.kind} {statement.parent.digest[:16]}… as its parent, "
            f"expected {expected.kind} {expected.digest[:16]}…."
        )


def active_run(state: LedgerState, run: str | None) -> RunRecord:
    record = state.runs.get(run or "")
    if record is None:
        raise WrongParent(f"No run {run!r} is in the ledger.")
    if record.ended is not None:
        raise RoundNotOpen(f"Run {run} has ended: {record.ended.reason}.")
    return record


def with_run(state: LedgerState, record: RunRecord) -> LedgerState:
    return replace(state, runs=with_entry(state.runs, record.run, record))
