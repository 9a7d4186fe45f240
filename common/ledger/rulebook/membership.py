"""Who belongs: rosters, and institutions that leave (docs/protocol.md#membership)."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from common.errors import LedgerConflict, MalformedStatement, SlotTaken, WrongParent
from common.ledger.rulebook.approvals import check_approvals
from common.ledger.rulebook.following import follows
from common.ledger.state import Departure, LedgerState, Place, with_entry
from common.statements.envelope import Draft, Statement
from common.statements.kinds import Control, Roster


def roster(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    roster = roster_that_follows(state, statement)
    check_approvals(state, statement)
    return replace(state, roster=roster, roster_place=place)


def roster_that_follows(state: LedgerState, statement: Statement | Draft) -> Roster:
    """What a roster must be, whoever approved it."""
    roster = cast(Roster, statement.predicate)
    follows(statement, state.roster_place or state.genesis_place)
    expected = state.roster.version + 1 if state.roster else 1
    if roster.version != expected:
        raise WrongParent(f"Roster version is {roster.version}, expected {expected}.")
    _check_departed(state, roster)
    return roster


def _check_departed(state: LedgerState, roster: Roster) -> None:
    """Nobody who left, or was revoked, comes back under the same name; nobody disappears."""
    for before in state.roster.members if state.roster else ():
        after = roster.member(before.name)
        if after is None or (before.status != "active" and after.status != before.status):
            found = after.status if after else "absent"
            raise LedgerConflict(f"Roster {roster.version}: {before.name} was {before.status} and is {found}.")


def leave(state: LedgerState, statement: Statement, control: Control, place: Place) -> LedgerState:
    name = control.institution or ""
    follows(statement, state.roster_place or state.genesis_place)
    if control.run is not None or control.model is not None:
        raise MalformedStatement(f"The leave of {name} names a run or a model; an institution leaves the consortium.")
    if name in state.departures:
        raise SlotTaken(f"{name} has left already, at {state.departures[name].place.index}.")
    return replace(state, departures=with_entry(state.departures, name, Departure(place)))


def erased(state: LedgerState, statement: Statement, control: Control, place: Place) -> LedgerState:
    name = control.institution or ""
    departure = state.departures.get(name)
    if departure is None:
        raise WrongParent(f"{name!r} has not left, so nothing of it is erased.")
    follows(statement, departure.place)
    if departure.erased is not None:
        raise SlotTaken(f"The erasure of {name} is recorded already, at {departure.erased.index}.")
    return replace(state, departures=with_entry(state.departures, name, Departure(departure.place, place)))
