"""What is to be trained, and who takes part."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from common.errors import NotInCohort, SlotTaken, UnsupportedProtocol, WrongParent
from common.ledger.rulebook.approvals import check_approvals
from common.ledger.rulebook.following import active_run, follows, with_run
from common.ledger.state import Answered, LedgerState, Place, RunRecord, with_entry
from common.statements.envelope import Draft, Statement
from common.statements.kinds import Answer, PlanStatement


def plan(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    plan = plan_that_follows(state, statement)
    check_approvals(state, statement)
    return with_run(state, RunRecord(place, plan))


def plan_that_follows(state: LedgerState, statement: Statement | Draft) -> PlanStatement:
    """What a plan must be, whoever approved it."""
    plan = cast(PlanStatement, statement.predicate)
    if state.roster_place is None:
        raise WrongParent("A plan needs a roster before it.")
    follows(statement, state.roster_place)
    if plan.run in state.runs:
        raise SlotTaken(f"Run {plan.run} exists already.", "Prepare the plan again: each run has an id of its own.")
    return plan


def answer(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    answer = cast(Answer, statement.predicate)
    run = active_run(state, answer.run)
    follows(statement, run.place)
    if answer.institution not in state.active_trainers:
        raise NotInCohort(f"{answer.institution} is no trainer, so run {answer.run} does not ask it.")
    if answer.institution in run.answers:
        raise SlotTaken(f"{answer.institution} has answered plan {answer.run} already.")
    offered = run.statement.protocol_versions
    if answer.accept and answer.protocol_version not in offered:
        raise UnsupportedProtocol(
            f"{answer.institution} accepts run {answer.run} in protocol version {answer.protocol_version}, expected {offered}."
        )
    return with_run(state, replace(run, answers=with_entry(run.answers, answer.institution, Answered(place, answer))))
