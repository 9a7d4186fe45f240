"""What this institution has to do next: a pure decision from its copy of the ledger and its journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """A plan awaits this institution's answer."""

    run: RunRecord


@dataclass(frozen=True, slots=True)
class WorkOnRound:
    """A round awaits this institution's contribution."""

    run: RunRecord
    record: RoundRecord


Task = AnswerPlan | WorkOnRound


def answer_slot(run: RunRecord) -> str:
    """The slot of an answer: one for each plan."""
    return f"answer/{run.place.digest}"


def contribution_slot(record: RoundRecord) -> str:
    """The slot of a contribution: one for each round-opened."""
    return f"contribution/{record.place.digest}"


def attestation_slot(closed: Place) -> str:
    """The slot of an attestation: one for each round-closed."""
    return f"attestation/{closed.digest}"


def next_task(
    state: LedgerState,
    institution: str,
    given_up: Callable[[str], bool],
    wanted: Callable[[RunRecord], bool] = lambda run: False,
) -> Task | None:
    """The oldest thing to do: rounds before answers, since others wait for them.

    Args:
        given_up: whether a slot was tried and cannot be done, or waits for a person; it is left alone.
        wanted: whether a plan is answered though its first round is open already: a person decided, or the answer was signed
            before. A policy's answer comes before the first round or not at all.
    """
    member = state.member(institution)
    if member is None or not state.is_active(institution):
        return None
    for run in state.active_runs:
        record = waiting_round(run, institution)
        if record is not None and not given_up(contribution_slot(record)):
            return WorkOnRound(run, record)
    if "trainer" not in member.roles:
        return None
    for run in unanswered(state, institution):
        if not given_up(answer_slot(run)) and (not run.rounds or wanted(run)):
            return AnswerPlan(run)
    return None


def waiting_round(run: RunRecord, institution: str) -> RoundRecord | None:
    """The round that is open and lacks this institution's contribution."""
    record = run.open_round
    return record if record is not None and institution in record.missing else None


def unanswered(state: LedgerState, institution: str) -> tuple[RunRecord, ...]:
    """Runs that go on and lack this institution's answer, oldest first."""
    return tuple(run for run in state.active_runs if institution not in run.answers)
