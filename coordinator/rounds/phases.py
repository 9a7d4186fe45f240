"""The states of a run and what decides between them, as pure functions (docs/protocol.md#round).

    ANSWERING ──enough──▶ COLLECTING ──all in, or deadline──▶ SEALED ──▶ BETWEEN ──▶ COLLECTING …
        └──too few──▶ ENDED                                     quorum: committed      │  planned rounds done:
                                                                else:   abandoned      ▼  one evaluation, then
                                                                             PAUSED ◀──┴▶ ENDED

A run's phase is derived from the ledger and from whether its open round is sealed; nothing else is stored, so a restart lands
in the same phase.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Literal

from common.clock import parse_rfc3339
from common.ledger.state import RoundRecord, RunRecord
from common.plan.rounds import StopRules

MAX_ABANDONED_IN_A_ROW = 3
ABORTED = "aborted"
ROLLED_BACK = "rolled-back"
LOSS_SCALE = 2**16


class Phase(StrEnum):
    """Where a run stands."""

    ANSWERING = "answering"
    COLLECTING = "collecting"
    SEALED = "sealed"
    BETWEEN = "opening"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as the engine sees it: the ledger's record, and why its open round takes nothing more, if so."""

    record: RunRecord
    sealed: str | None = None

    @property
    def phase(self) -> Phase:
        if self.record.ended is not None:
            return Phase.ENDED
        if self.record.open_round is not None:
            return Phase.SEALED if self.sealed else Phase.COLLECTING
        if self.record.paused and not _is_aborted(self.record):
            return Phase.PAUSED
        return Phase.BETWEEN if self.record.rounds else Phase.ANSWERING

    @property
    def has_quorum(self) -> bool:
        """Whether the open round may be committed: the plan's quorum of deltas, or any measurement at all."""
        current = self.record.open_round
        if current is None:
            return False
        needed = self.record.statement.plan.quorum if current.opened.task == "train" else 1
        return len(current.contributions) >= needed


@dataclass(frozen=True, slots=True)
class EvaluationSums:
    """An institution's measurement of a round's base model."""

    institution: str
    loss_sum_fixed: int
    num_tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean loss in nats; infinite where nothing was measured or it overflows."""
        if self.num_tokens == 0:
            return math.inf
        nats = self.loss_sum_fixed / LOSS_SCALE / self.num_tokens
        return math.exp(nats) if nats < 700 else math.inf


Evaluations = Mapping[int, Sequence[EvaluationSums]]
"""Measurements by round number."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """What follows a closed round: another round, or the end."""

    task: Literal["train", "evaluate"] | None
    end_reason: str = ""


def next_step(record: RunRecord, evaluations: Evaluations) -> NextStep:
    """What a run does after its newest round, by plan and ledger alone."""
    if _is_aborted(record):
        return NextStep(None, ABORTED)  # a crash came between the two statements of an abort
    newest = record.newest_closed
    if newest is not None and newest.opened.task == "evaluate":
        return NextStep(None, _why_training_ended(record, evaluations))
    if _abandoned_in_a_row(record) >= MAX_ABANDONED_IN_A_ROW:
        return NextStep(None, "too-many-abandoned-rounds")
    done = len(record.committed()) >= record.rounds_planned
    if done or stop_reason(record, evaluations):
        return NextStep("evaluate")
    return NextStep("train")


def _is_aborted(record: RunRecord) -> bool:
    """Whether the operator's abort closed the newest round: what follows is the end, also of a paused run."""
    closed = record.current.closed if record.current is not None else None
    return closed is not None and closed.reason == ABORTED


def _why_training_ended(record: RunRecord, evaluations: Evaluations) -> str:
    if len(record.committed()) >= record.rounds_planned:
        return "rounds-done"
    return stop_reason(record, evaluations) or "rounds-done"


def _abandoned_in_a_row(record: RunRecord) -> int:
    count = 0
    for entry in reversed(record.standing):
        if entry.closed is None or entry.closed.outcome != "abandoned":
            break
        count += 1
    return count


def stop_reason(record: RunRecord, evaluations: Evaluations) -> str:
    """The stop rule that applies after the newest training round, or nothing.

    The median over institutions decides, so that one that lies about its losses stops no run. Abandoned rounds do not count:
    without a quorum the median may be the liar's own, and their model is measured again in the next round.
    """
    rules: StopRules = record.statement.plan.stop
    medians = [
        median(sums.perplexity for sums in evaluations[entry.number])
        for entry in record.committed()
        if evaluations.get(entry.number)
    ]
    if rules.target_perplexity is not None and medians and medians[-1] <= float(rules.target_perplexity):
        return "target-reached"
    if rules.patience_rounds is not None and len(medians) > rules.patience_rounds:
        best_before = min(medians[: -rules.patience_rounds])
        if min(medians[-rules.patience_rounds :]) >= best_before:
            return "no-improvement"
    return ""


def answers_suffice(record: RunRecord, trainers: Sequence[str], now: datetime, asked_until: datetime) -> str | None:
    """Whether round 1 may open ("open"), the run must end ("too-few-acceptances"), or answers are awaited (None)."""
    plan = record.statement.plan
    accepted = sum(name in record.accepted for name in trainers)
    everyone = all(name in record.answers for name in trainers)
    if everyone and len(trainers) >= plan.quorum:
        return "open" if accepted >= plan.quorum else "too-few-acceptances"
    if now >= asked_until:
        return "open" if accepted >= plan.quorum else "too-few-acceptances"
    return None


def seal_reason(
    current: RoundRecord, quorum: int, now: datetime, lapsed: Sequence[str], gone: Collection[str] = ()
) -> str | None:
    """Why the open round takes nothing more: everyone is in, or as many as were wanted; the deadline passed; only the silent
    are missing.

    Args:
        quorum: contributions with which the round may go on without members whose lease lapsed.
        lapsed: members of the cohort that have not reported for a lease.
        gone: members of the cohort that left or were revoked: nothing more comes of them.
    """
    missing = [name for name in current.missing if name not in gone]
    if not missing:
        return "all-contributed"
    if current.is_full:
        return "enough-contributed"
    if now >= deadline(current):
        return "deadline-passed"
    if len(current.contributions) >= quorum and set(missing) <= set(lapsed):
        return "leases-lapsed"
    return None


def deadline(current: RoundRecord) -> datetime:
    """When the round's last stage ends."""
    return parse_rfc3339(current.deadline)


def need_not_wait(back_at: datetime | None, until: datetime) -> bool:
    """Whether a member that is away until `back_at` cannot be back before the deadline `until`."""
    return back_at is not None and back_at >= until


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of how fast a run goes.

    Args:
        closed_seconds: of each closed training round.
        open_seconds: since the open round was opened; None where none is open.
        done: share of the open round's steps that the slowest working member did, 0 to 1; 0 where nothing is known.
    """

    closed_seconds: Sequence[float] = ()
    open_seconds: float | None = None
    done: float = 0.0


def eta_seconds(rounds_left: int, pace: Pace) -> float:
    """Seconds until a run's planned end by its rounds so far: medians of closed rounds, and steps in the open one.

    Args:
        rounds_left: training rounds that are still to be committed, the open one included.

    Returns:
        0 where nothing is known yet, or nothing is left. The evaluation at the end is not counted.
    """
    if rounds_left <= 0:
        return 0.0
    typical = median(pace.closed_seconds) if pace.closed_seconds else 0.0
    if pace.open_seconds is None:
        return rounds_left * typical
    by_steps = pace.open_seconds / pace.done if pace.done > 0 else 0.0
    rest = max(0.0, (by_steps or typical) - pace.open_seconds)
    return rest + (rounds_left - 1) * (typical or by_steps)
