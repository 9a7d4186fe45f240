"""A round: opened, contributed to, refused from, closed (docs/protocol.md#round)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import cast

from common.errors import LedgerConflict, NotInCohort, RoundNotOpen, SlotTaken, WrongParent
from common.ledger.cohort import draw, round_seed
from common.ledger.downlink import applied_delta_bytes, server_state_bytes
from common.ledger.rulebook.following import active_run, follows, with_run
from common.ledger.staleness import contributed, taking_round
from common.ledger.state import Contributed, LedgerState, Place, RoundRecord, RunRecord, with_entry
from common.ledger.tasks import check_shape, check_task, mode_of
from common.statements.envelope import Statement
from common.statements.kinds import ClearWeight, Contribution, PlanStatement, Refusal, RoundClosed, RoundOpened

OPERATORS_RULE = re.compile(
    r"[a-z][a-z0-9-]{0,30}:[a-z0-9_-]{1,50}==[0-9A-Za-z.+!-]{1,50}:[A-Za-z0-9]{1,100}\([ -~]{0,2000}\)"
)
"""What combined a round whose plan leaves that to the operator: family, package and version, name and arguments."""


def round_opened(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    opened = cast(RoundOpened, statement.predicate)
    run = active_run(state, opened.run)
    follows(statement, run.tip)
    expected = run.current.number + 1 if run.current else 1
    if run.open_round is not None or opened.round != expected:
        raise WrongParent(f"Round {opened.round} of {opened.run} was opened, expected {expected} after a closed one.")
    if run.paused:
        raise LedgerConflict(f"Round {opened.round} of {opened.run} was opened while the run is paused.")
    check_task(run, opened)
    drawn = draw(state, run, opened.round)
    facts: tuple[tuple[str, object, object], ...] = (
        ("model", opened.inputs.model, run.model),
        ("server_state", opened.inputs.server_state, run.server_state),
        ("roster", opened.roster, state.roster_place.digest if state.roster_place else ""),
        ("cohort", opened.cohort, drawn.cohort),
        ("mode", opened.mode, mode_of(run.statement.plan, opened.task)),
        ("seed", opened.seed, round_seed(run.place.digest, opened.round)),
        ("stages", tuple(stage.name for stage in opened.stages), ("collect",)),
    )
    for name, got, wanted in facts:
        if got != wanted:
            raise LedgerConflict(f"Round {opened.round} of {opened.run}: {name} is {got}, by the protocol {wanted}.")
    measures_buffered = opened.task == "evaluate" and run.statement.plan.mode.type == "buffered"
    wanted = None if measures_buffered else drawn.enough  # everybody measures the final model
    return with_run(state, run.with_round(RoundRecord(place, opened, wanted=wanted, turn=drawn.turn)))


def contribution(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    contribution = cast(Contribution, statement.predicate)
    run = active_run(state, contribution.run)
    record = _open_round(run, contribution)
    trained_from = run.rounds[contribution.round - 1]
    name, where = contribution.institution, f"round {record.number} of {run.run}"
    if name not in trained_from.opened.cohort or name not in record.opened.cohort:
        raise NotInCohort(f"{name} is not in the cohort of {where}.")
    follows(statement, trained_from.place)
    if contributed(run, contribution.round, name) is not None:
        raise SlotTaken(f"{name} has contributed to round {contribution.round} of {run.run} already.")
    if name in record.contributions:
        raise RoundNotOpen(f"{name} has a late contribution in {where} already; the next round takes another.")
    if record.is_full:
        raise RoundNotOpen(f"R{where[1:]} has the {record.enough} contributions that its plan asks for.")
    check_shape(run.statement.plan, record.opened, contribution)
    entry = Contributed(place, contribution)
    filled = with_entry(record.contributions, contribution.institution, entry)
    return with_run(state, run.with_round(replace(record, contributions=filled)))


def _open_round(run: RunRecord, contribution: Contribution) -> RoundRecord:
    record = run.current
    if record is None or contribution.round > record.number:
        newest = record.number if record else 0
        raise WrongParent(f"Round {contribution.round} of {run.run} does not exist; the newest is {newest}.")
    taking = taking_round(run, contribution.round)
    if taking is None:
        raise RoundNotOpen(f"Round {contribution.round} of {run.run} is closed.")
    return taking


def refusal(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    refusal = cast(Refusal, statement.predicate)
    follows(statement, refused_at(state, refusal.run, refusal.round))
    key = (refusal.institution, refusal.run, refusal.round, refusal.code)
    if key in state.refusals:
        raise SlotTaken(f"A refusal {refusal.code} of {refusal.institution} is recorded for this round already.")
    return replace(
        state,
        refusals=with_entry(state.refusals, key, place),
        refusal_list=(*state.refusal_list, (place, refusal)),
    )


def refused_at(state: LedgerState, run: str | None, number: int | None) -> Place:
    """What a refusal names as its parent: the round's opening, else the run's plan, else the newest roster."""
    record = state.runs.get(run or "")
    if record is None:
        return state.roster_place or state.genesis_place
    return next((each.place for each in record.rounds if each.number == number), record.place)


def round_closed(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    closed = cast(RoundClosed, statement.predicate)
    run = active_run(state, closed.run)
    record = run.open_round
    if record is None or record.number != closed.round:
        raise WrongParent(f"Round {closed.round} of {closed.run} is not open.")
    follows(statement, record.place)
    for entry in closed.inputs:
        given = record.contributions.get(entry.institution)
        weight = given.contribution.weight if given else None
        said = weight.num_tokens if isinstance(weight, ClearWeight) else None
        if given is None or given.place.digest != entry.contribution or said != entry.num_tokens:
            raise LedgerConflict(
                f"Round {closed.round} closes with an input of {entry.institution} that is not in the ledger."
            )
    if len(closed.inputs) != len(record.contributions):
        raise LedgerConflict(f"Round {closed.round} closes without a word on one of its contributions.")
    _check_outcome(run, record, closed)
    return with_run(state, run.with_round(replace(record, closed=closed, closed_place=place)))


def _check_outcome(run: RunRecord, record: RoundRecord, closed: RoundClosed) -> None:
    plan = run.statement.plan
    committed, trains = closed.outcome == "committed", record.opened.task == "train"
    used = sum(entry.status == "used" for entry in closed.inputs)
    quorum = plan.quorum if trains else 1
    if committed and used < quorum:
        raise LedgerConflict(f"Round {closed.round} was committed with {used} contributions, its quorum is {quorum}.")
    if committed and used < len(closed.inputs):
        raise LedgerConflict(
            f"Round {closed.round} was committed without {len(closed.inputs) - used} of its contributions."
        )
    if not committed and any(entry.status != "unused" for entry in closed.inputs):
        raise LedgerConflict(f"Round {closed.round} was abandoned, and marks a contribution otherwise than unused.")
    changes = committed and trains
    if not changes and closed.outputs.model != record.opened.inputs.model:
        raise LedgerConflict(f"Round {closed.round} ({closed.outcome}, {record.opened.task}) may not change the model.")
    _check_beside(run.statement, record, closed, changes=changes)
    if changes and plan.rule.type == "operator":
        if not OPERATORS_RULE.fullmatch(closed.rule):
            raise LedgerConflict(
                f"Round {closed.round} was closed by rule {closed.rule[:200]!r}; by the plan it is the operator's, so expected "
                "one that names what combined it, as flower:flwr==1.41.0:FedMedian()."
            )
    elif closed.rule != plan.rule.type:
        raise LedgerConflict(f"Round {closed.round} was closed by rule {closed.rule}, the plan says {plan.rule.type}.")


def _check_beside(statement: PlanStatement, record: RoundRecord, closed: RoundClosed, *, changes: bool) -> None:
    """Outputs besides the model: what the plan's downlink makes of a committed training round; else the state as it was."""
    where, outputs = f"Round {closed.round}", closed.outputs
    if not changes:
        if outputs.server_state != record.opened.inputs.server_state or outputs.applied_delta is not None:
            raise LedgerConflict(
                f"{where} ({closed.outcome}, {record.opened.task}) may not change the server_state, nor have an applied_delta."
            )
        return
    sizes = (
        ("applied_delta", outputs.applied_delta, applied_delta_bytes(statement)),
        ("server_state", outputs.server_state, server_state_bytes(statement)),
    )
    for name, ref, expected in sizes:
        got = None if ref is None else ref.size
        if got != expected:
            raise LedgerConflict(f"{where} closes with {name} of {got} bytes, by its plan {expected}.")
