"""What this institution has to do next: a pure decision from its copy of the ledger and its journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.ledger.state import LedgerState, RoundRecord, RunRecord


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


def next_task(state: LedgerState, institution: str, given_up: Callable[[str], bool]) -> Task | None:
    """The oldest thing to do: rounds before answers, since others wait for them.

    Args:
        given_up: whether a slot was tried and cannot be done; it is left alone.
    """
    member = state.member(institution)
    if member is None or member.status != "active":
        return None
    for run in state.active_runs:
        record = run.open_round
        if record is None or institution not in record.opened.cohort or institution in record.contributions:
            continue
        if not given_up(contribution_slot(record)):
            return WorkOnRound(run, record)
    if "trainer" not in member.roles:
        return None
    for run in state.active_runs:
        if institution not in run.answers and not run.rounds and not given_up(answer_slot(run)):
            return AnswerPlan(run)
    return None
