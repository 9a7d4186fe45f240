"""Controls: a run paused, resumed, extended, rolled back, ended; an institution that leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from common.errors import LedgerConflict, MalformedStatement
from common.ledger.rulebook.following import active_run, follows, with_run
from common.ledger.rulebook.lineage import recovery
from common.ledger.rulebook.membership import erased, leave
from common.ledger.rulebook.steering import extend, roll_back
from common.ledger.state import LedgerState, Place
from common.statements.envelope import Statement
from common.statements.kinds import Control


def control(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    control = cast(Control, statement.predicate)
    if control.action == "leave":
        return leave(state, statement, control, place)
    if control.action == "erased":
        return erased(state, statement, control, place)
    if control.action == "recovery":
        return recovery(state, statement, control, place)
    if control.given_up is not None:
        raise MalformedStatement(f"A control {control.action} gives up no lineage.")
    run = active_run(state, control.run)
    if control.action == "extend":
        return extend(state, statement, control, run)
    if control.action == "roll-back":
        return roll_back(state, statement, control, run, place)
    follows(statement, run.tip)
    match control.action:
        case "pause" | "resume":
            return with_run(state, replace(run, paused=control.action == "pause"))
        case "run-ended" if run.open_round is not None:
            raise LedgerConflict(f"Run {run.run} ends while round {run.open_round.number} is open.")
        case "run-ended" if control.model != run.model:
            raise LedgerConflict(f"Run {run.run} ends with model {control.model}, the newest committed is {run.model}.")
        case "run-ended":
            return with_run(state, replace(run, ended=control))
        case _:
            raise MalformedStatement(f"Control {control.action} is not of this protocol version.")
