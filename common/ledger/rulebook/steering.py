"""A run steered: more rounds, a later deadline, back to an earlier round (docs/protocol.md#steering)."""

from __future__ import annotations

from dataclasses import replace

from common.errors import LedgerConflict, MalformedStatement
from common.ledger.rulebook.following import follows, with_run
from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.statements.envelope import Statement
from common.statements.kinds import Control

_FIELDS = ("round", "model", "deadline", "rounds", "institution", "missing_from")


def extend(state: LedgerState, statement: Statement, control: Control, run: RunRecord) -> LedgerState:
    """More training rounds, or a later deadline for the open round.

    Raises:
        MalformedStatement: neither or both, or a field that is about something else.
        LedgerConflict: not more rounds than before, rounds that approvals were asked for, or no such open round.
    """
    if control.rounds is None:
        return _later(state, statement, control, run)
    _expect_fields(control, "rounds")
    follows(statement, run.tip)
    where = f"Run {run.run} is extended to {control.rounds} training rounds"
    if control.rounds <= run.rounds_planned:
        raise LedgerConflict(f"{where}, it has {run.rounds_planned} already.")
    if state.genesis.approvals.get("plan", 0):
        raise LedgerConflict(f"{where}, which its institutions approved with {run.rounds_planned}: start another run.")
    newest = run.standing[-1] if run.standing else None
    if newest is not None and newest.opened.task == "evaluate":
        raise LedgerConflict(f"{where} after its evaluation, round {newest.number}, was opened.")
    return with_run(state, replace(run, extended_to=control.rounds))


def _later(state: LedgerState, statement: Statement, control: Control, run: RunRecord) -> LedgerState:
    _expect_fields(control, "round", "deadline")
    record = run.open_round
    if record is None or record.number != control.round:
        raise LedgerConflict(f"Round {control.round} of {run.run} gets another deadline, and is not open.")
    follows(statement, record.place)
    return with_run(state, run.with_round(replace(record, extended_to=control.deadline)))


def roll_back(state: LedgerState, statement: Statement, control: Control, run: RunRecord, place: Place) -> LedgerState:
    """The run goes on from what an earlier round left; later rounds stay in the ledger, and their numbers are used up.

    Raises:
        MalformedStatement: a field that is about something else.
        LedgerConflict: a round is open, there is no such earlier round, or the model is not the one that it left.
    """
    _expect_fields(control, *(("round", "model") if control.round is not None else ("model",)))
    follows(statement, run.tip)
    if run.open_round is not None:
        raise LedgerConflict(f"Run {run.run} is rolled back while round {run.open_round.number} is open.")
    model = left_by(run, control.round or 0).model
    if control.model != model:
        raise LedgerConflict(
            f"Run {run.run} is rolled back to round {control.round or 0} with model {control.model}, that round left {model}."
        )
    after = control.round or 0
    rounds = tuple(replace(each, rolled_back=each.rolled_back or each.number > after) for each in run.rounds)
    return with_run(state, replace(run, rounds=rounds, roll_back=place))


def left_by(run: RunRecord, number: int) -> RunRecord:
    """The run as it was right after that round was closed; 0: before its first round.

    Raises:
        LedgerConflict: there is no such round, it was rolled back itself, or nothing came after it.
    """
    standing: tuple[RoundRecord, ...] = tuple(each for each in run.standing if each.number <= number)
    where = f"Run {run.run} is rolled back to round {number}"
    if number and (not standing or standing[-1].number != number):
        raise LedgerConflict(f"{where}, which is none of its rounds, or was rolled back itself.")
    if len(standing) == len(run.standing):
        raise LedgerConflict(f"{where}, and no round came after it.")
    return replace(run, rounds=standing)


def _expect_fields(control: Control, *wanted: str) -> None:
    given = [name for name in _FIELDS if getattr(control, name) is not None]
    if sorted(given) != sorted(wanted):
        raise MalformedStatement(
            f"Control {control.action} of {control.run} names {', '.join(sorted(given)) or 'nothing'}, "
            f"expected {', '.join(sorted(wanted))}."
        )
