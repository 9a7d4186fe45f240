"""Which statement may come next: the protocol's rules as a pure fold (docs/protocol.md#parents).

`start` takes the genesis, `admit` each envelope after it: form, signer by the roster of that leaf, parent, and what the kind
asks. The coordinator runs this before it appends, every participant and verifier while it reads, so nobody depends on
another's care. What needs bytes or clocks (a delta's numbers, a deadline) is checked where those are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from common.errors import (
    LedgerConflict,
    MalformedStatement,
    NotInCohort,
    RoundNotOpen,
    SlotTaken,
    WrongParent,
    WrongSigner,
)
from common.identity.invitation import open_genesis
from common.ledger.cohort import draw_cohort, round_seed
from common.ledger.places import Layered
from common.ledger.state import (
    Answered,
    Contributed,
    Departure,
    LedgerState,
    Place,
    RoundRecord,
    RunRecord,
    with_entry,
)
from common.ledger.tasks import check_shape, check_task
from common.plan.model import Plan
from common.statements.envelope import Parent, Statement, UnverifiedStatement, parse, verify
from common.statements.kinds import (
    Answer,
    ClearWeight,
    Contribution,
    Control,
    Kind,
    PlanStatement,
    PublicKey,
    Refusal,
    Roster,
    RoundClosed,
    RoundOpened,
    signing_institution,
)


@dataclass(frozen=True, slots=True)
class Admission:
    """A statement that follows, and the ledger's state after it."""

    state: LedgerState
    statement: Statement
    place: Place


def start(genesis_envelope: bytes) -> Admission:
    """The state of a ledger that holds only its genesis.

    Raises:
        StatementError: it is no genesis that its own key signed.
    """
    statement, genesis = open_genesis(genesis_envelope)
    place = Place(0, statement.digest, Kind.GENESIS)
    state = LedgerState(genesis=genesis, genesis_place=place, size=1, places=Layered({statement.digest: place}))
    return Admission(state, statement, place)


def admit(state: LedgerState, envelope: bytes) -> Admission:
    """The state after one more envelope.

    Raises:
        StatementError, DeltaError: the first rule that it breaks. The state given stays as it was.
    """
    unverified = parse(envelope)
    statement = verify(unverified, signer_key(state, unverified))
    return admit_verified(state, statement)


def admit_verified(state: LedgerState, statement: Statement) -> Admission:
    """As `admit`, for a statement whose signature was checked under `signer_key` of this very state."""
    if statement.digest in state.places:
        raise WrongParent(
            f"This {statement.kind} stands in the ledger already, at {state.places[statement.digest].index}."
        )
    place = Place(state.size, statement.digest, statement.kind)
    changed = _RULES[statement.kind](state, statement, place)
    after = replace(changed, size=state.size + 1, places=state.places.with_entry(statement.digest, place))
    return Admission(after, statement, place)


def signer_key(state: LedgerState, statement: UnverifiedStatement) -> PublicKey:
    """The one key that may have signed this, by the roster as it stands.

    Raises:
        WrongSigner: an institution that is no active member speaks.
    """
    name = signing_institution(statement.predicate)
    if name is None:
        return state.genesis.coordinator_key
    member = state.member(name)
    if member is None or not state.is_active(name):
        raise WrongSigner(f"{name} is no active member of {state.genesis.consortium}.")
    return member.signing_key


# --- parents ---------------------------------------------------------------------------------------------------------


def _follows(statement: Statement, parent: Place) -> None:
    expected = Parent(parent.kind.value, parent.digest)
    if statement.parent != expected:
        raise WrongParent(
            f"A {statement.kind} names {statement.parent.kind} {statement.parent.digest[:16]}… as its parent, "
            f"expected {expected.kind} {expected.digest[:16]}…."
        )


def _run(state: LedgerState, run: str | None) -> RunRecord:
    record = state.runs.get(run or "")
    if record is None:
        raise WrongParent(f"No run {run!r} is in the ledger.")
    if record.ended is not None:
        raise RoundNotOpen(f"Run {run} has ended: {record.ended.reason}.")
    return record


def _with_run(state: LedgerState, record: RunRecord) -> LedgerState:
    return replace(state, runs=with_entry(state.runs, record.run, record))


# --- one rule a kind -------------------------------------------------------------------------------------------------


def _genesis(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    raise LedgerConflict(f"A second genesis at index {place.index}; a ledger has one, at 0.")


def _roster(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    roster = cast(Roster, statement.predicate)
    _follows(statement, state.roster_place or state.genesis_place)
    expected = state.roster.version + 1 if state.roster else 1
    if roster.version != expected:
        raise WrongParent(f"Roster version is {roster.version}, expected {expected}.")
    _check_departed(state, roster)
    return replace(state, roster=roster, roster_place=place)


def _check_departed(state: LedgerState, roster: Roster) -> None:
    """Nobody who left, or was revoked, comes back under the same name; nobody disappears."""
    for before in state.roster.members if state.roster else ():
        after = roster.member(before.name)
        if after is None or (before.status != "active" and after.status != before.status):
            found = after.status if after else "absent"
            raise LedgerConflict(f"Roster {roster.version}: {before.name} was {before.status} and is {found}.")


def _plan(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    plan = cast(PlanStatement, statement.predicate)
    if state.roster_place is None:
        raise WrongParent("A plan needs a roster before it.")
    _follows(statement, state.roster_place)
    if plan.run in state.runs:
        raise SlotTaken(f"Run {plan.run} exists already.", "Prepare the plan again: each run has an id of its own.")
    return _with_run(state, RunRecord(place, plan))


def _answer(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    answer = cast(Answer, statement.predicate)
    run = _run(state, answer.run)
    _follows(statement, run.place)
    if answer.institution not in state.active_trainers:
        raise NotInCohort(f"{answer.institution} is no trainer, so run {answer.run} does not ask it.")
    if answer.institution in run.answers:
        raise SlotTaken(f"{answer.institution} has answered plan {answer.run} already.")
    return _with_run(state, replace(run, answers=with_entry(run.answers, answer.institution, Answered(place, answer))))


def _round_opened(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    opened = cast(RoundOpened, statement.predicate)
    run = _run(state, opened.run)
    _follows(statement, run.tip)
    expected = run.current.number + 1 if run.current else 1
    if run.open_round is not None or opened.round != expected:
        raise WrongParent(f"Round {opened.round} of {opened.run} was opened, expected {expected} after a closed one.")
    if run.paused:
        raise LedgerConflict(f"Round {opened.round} of {opened.run} was opened while the run is paused.")
    check_task(run, opened)
    facts: tuple[tuple[str, object, object], ...] = (
        ("model", opened.inputs.model, run.model),
        ("server_state", opened.inputs.server_state, run.server_state),
        ("roster", opened.roster, state.roster_place.digest if state.roster_place else ""),
        ("cohort", opened.cohort, draw_cohort(state, run, opened.round)),
        ("seed", opened.seed, round_seed(run.place.digest, opened.round)),
        ("stages", tuple(stage.name for stage in opened.stages), ("collect",)),
    )
    for name, got, wanted in facts:
        if got != wanted:
            raise LedgerConflict(f"Round {opened.round} of {opened.run}: {name} is {got}, by the protocol {wanted}.")
    return _with_run(state, run.with_round(RoundRecord(place, opened)))


def _contribution(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    contribution = cast(Contribution, statement.predicate)
    run = _run(state, contribution.run)
    record = _open_round(run, contribution)
    if contribution.institution not in record.opened.cohort:
        raise NotInCohort(f"{contribution.institution} is not in the cohort of round {record.number} of {run.run}.")
    _follows(statement, record.place)
    if contribution.institution in record.contributions:
        raise SlotTaken(f"{contribution.institution} has contributed to round {record.number} of {run.run} already.")
    check_shape(run.statement.plan, record.opened, contribution)
    entry = Contributed(place, contribution)
    filled = with_entry(record.contributions, contribution.institution, entry)
    return _with_run(state, run.with_round(replace(record, contributions=filled)))


def _open_round(run: RunRecord, contribution: Contribution) -> RoundRecord:
    record = run.current
    if record is None or contribution.round > record.number:
        newest = record.number if record else 0
        raise WrongParent(f"Round {contribution.round} of {run.run} does not exist; the newest is {newest}.")
    if contribution.round < record.number or record.closed is not None:
        raise RoundNotOpen(f"Round {contribution.round} of {run.run} is closed.")
    return record


def _refusal(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    refusal = cast(Refusal, statement.predicate)
    _follows(statement, refused_at(state, refusal.run, refusal.round))
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


def _round_closed(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    closed = cast(RoundClosed, statement.predicate)
    run = _run(state, closed.run)
    record = run.open_round
    if record is None or record.number != closed.round:
        raise WrongParent(f"Round {closed.round} of {closed.run} is not open.")
    _follows(statement, record.place)
    for entry in closed.inputs:
        given = record.contributions.get(entry.institution)
        weight = given.contribution.weight if given else None
        if (
            given is None
            or given.place.digest != entry.contribution
            or weight != ClearWeight(num_tokens=entry.num_tokens)
        ):
            raise LedgerConflict(
                f"Round {closed.round} closes with an input of {entry.institution} that is not in the ledger."
            )
    if len(closed.inputs) != len(record.contributions):
        raise LedgerConflict(f"Round {closed.round} closes without a word on one of its contributions.")
    _check_outcome(run.statement.plan, record, closed)
    return _with_run(state, run.with_round(replace(record, closed=closed, closed_place=place)))


def _check_outcome(plan: Plan, record: RoundRecord, closed: RoundClosed) -> None:
    used = sum(entry.status == "used" for entry in closed.inputs)
    changes = closed.outcome == "committed" and record.opened.task == "train"
    if changes and used < plan.quorum:
        raise LedgerConflict(
            f"Round {closed.round} was committed with {used} contributions, its quorum is {plan.quorum}."
        )
    if closed.outcome == "committed" and used < len(closed.inputs):
        raise LedgerConflict(
            f"Round {closed.round} was committed without {len(closed.inputs) - used} of its contributions."
        )
    if not changes and closed.outputs.model != record.opened.inputs.model:
        raise LedgerConflict(f"Round {closed.round} ({closed.outcome}, {record.opened.task}) may not change the model.")
    if closed.outputs.server_state is not None or closed.outputs.applied_delta is not None:
        raise LedgerConflict(f"Round {closed.round} has outputs besides the model: not of this protocol version.")
    if closed.rule != plan.rule.type:
        raise LedgerConflict(f"Round {closed.round} was closed by rule {closed.rule}, the plan says {plan.rule.type}.")


def _control(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    control = cast(Control, statement.predicate)
    if control.action == "leave":
        return _leave(state, statement, control, place)
    if control.action == "erased":
        return _erased(state, statement, control, place)
    run = _run(state, control.run)
    _follows(statement, run.tip)
    match control.action:
        case "pause" | "resume":
            return _with_run(state, replace(run, paused=control.action == "pause"))
        case "run-ended" if run.open_round is not None:
            raise LedgerConflict(f"Run {run.run} ends while round {run.open_round.number} is open.")
        case "run-ended" if control.model != run.model:
            raise LedgerConflict(f"Run {run.run} ends with model {control.model}, the newest committed is {run.model}.")
        case "run-ended":
            return _with_run(state, replace(run, ended=control))
        case _:
            raise MalformedStatement(f"Control {control.action} is not of this protocol version.")


def _leave(state: LedgerState, statement: Statement, control: Control, place: Place) -> LedgerState:
    name = control.institution or ""
    _follows(statement, state.roster_place or state.genesis_place)
    if control.run is not None or control.model is not None:
        raise MalformedStatement(f"The leave of {name} names a run or a model; an institution leaves the consortium.")
    if name in state.departures:
        raise SlotTaken(f"{name} has left already, at {state.departures[name].place.index}.")
    return replace(state, departures=with_entry(state.departures, name, Departure(place)))


def _erased(state: LedgerState, statement: Statement, control: Control, place: Place) -> LedgerState:
    name = control.institution or ""
    departure = state.departures.get(name)
    if departure is None:
        raise WrongParent(f"{name!r} has not left, so nothing of it is erased.")
    _follows(statement, departure.place)
    if departure.erased is not None:
        raise SlotTaken(f"The erasure of {name} is recorded already, at {departure.erased.index}.")
    return replace(state, departures=with_entry(state.departures, name, Departure(departure.place, place)))


def _later(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    raise MalformedStatement(f"Statements of kind {statement.kind} are not of this protocol version.")


_RULES: dict[Kind, Callable[[LedgerState, Statement, Place], LedgerState]] = {
    Kind.GENESIS: _genesis,
    Kind.ROSTER: _roster,
    Kind.PLAN: _plan,
    Kind.ANSWER: _answer,
    Kind.ROUND_OPENED: _round_opened,
    Kind.CONTRIBUTION: _contribution,
    Kind.REFUSAL: _refusal,
    Kind.ROUND_CLOSED: _round_closed,
    Kind.CONTROL: _control,
    Kind.ATTESTATION: _later,
    Kind.RELEASE: _later,
}
