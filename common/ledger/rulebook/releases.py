"""What others say of a run's models: attestations of auditors, releases (docs/protocol.md#attestations).

Both follow a closed round, also long after its run has ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from common.errors import LedgerConflict, SlotTaken, WrongParent, WrongSigner
from common.ledger.rulebook.approvals import check_approvals
from common.ledger.rulebook.following import follows, with_run
from common.ledger.state import (
    Attested,
    LedgerState,
    Place,
    Released,
    RoundRecord,
    RunRecord,
    with_entry,
)
from common.statements.envelope import Statement
from common.statements.kinds import Attestation, Release, RoundClosed


def attestation(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    said = cast(Attestation, statement.predicate)
    member = state.member(said.institution)
    if member is None or "auditor" not in member.roles:
        roles = ", ".join(member.roles) if member else "none"
        raise WrongSigner(
            f"{said.institution} has roles {roles}; a round is attested by an institution with the role auditor.",
            "Ask the operator for an invitation as an auditor: llmasos-coordinator institution invite NAME --role auditor.",
        )
    run, record, closed, closed_at = _closed_round(state, said.run, said.round)
    follows(statement, closed_at)
    if closed.outcome != "committed" or record.opened.task != "train":
        raise WrongParent(
            f"Round {said.round} of {said.run} ({closed.outcome}, {record.opened.task}) made no model: "
            "there is nothing to recompute."
        )
    if said.institution in record.attestations:
        known = record.attestations[said.institution].place.index
        raise SlotTaken(f"{said.institution} has attested round {said.round} of {said.run} already, at {known}.")
    if (said.model == closed.outputs.model) != (said.result == "equal"):
        raise LedgerConflict(
            f"The attestation of round {said.round} of {said.run} says {said.result} and names model {said.model}; "
            f"the round was committed with {closed.outputs.model}.",
            "An attestation is `equal` exactly where its model is the ledger's.",
        )
    attested = with_entry(record.attestations, said.institution, Attested(place, said))
    return with_run(state, run.with_round(replace(record, attestations=attested)))


def release(state: LedgerState, statement: Statement, place: Place) -> LedgerState:
    said = cast(Release, statement.predicate)
    run, record, closed, closed_at = _closed_round(state, said.run, said.round)
    follows(statement, closed_at)
    if closed.outcome != "committed" and record.opened.task != "evaluate":
        raise WrongParent(f"Round {said.round} of {said.run} was abandoned: no model of it can be released.")
    if said.model != closed.outputs.model:
        raise LedgerConflict(
            f"The release names model {said.model}; round {said.round} of {said.run} ended with {closed.outputs.model}.",
            "Release the model that the round-closed names.",
        )
    check_approvals(state, statement)
    return with_run(state, replace(run, releases=(*run.releases, Released(place, said))))


def _closed_round(state: LedgerState, name: str, number: int) -> tuple[RunRecord, RoundRecord, RoundClosed, Place]:
    """A round of any run, also of one that has ended, with what closed it and where."""
    run = state.runs.get(name)
    if run is None:
        raise WrongParent(f"No run {name!r} is in the ledger.")
    record = next((each for each in run.rounds if each.number == number), None)
    if record is None or record.closed is None or record.closed_place is None:
        raise WrongParent(f"Round {number} of {name} is not closed.")
    return run, record, record.closed, record.closed_place
