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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Literal

from common.clock import parse_rfc3339
from common.ledger.state import RoundRecord, RunRecord
from common.plan.model import StopRules

MAX_ABANDONED_IN_A_ROW = 3
ABORTED = "aborted"
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
        if self.record.paused:
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
    current = record.current
    if current is not None and current.closed is not None and current.closed.reason == ABORTED:
        return NextStep(None, ABORTED)  # a crash came between the two statements of an abort
    if current is not None and current.opened.task == "evaluate":
        return NextStep(None, _why_training_ended(record, evaluations))
    if _abandoned_in_a_row(record) >= MAX_ABANDONED_IN_A_ROW:
        return NextStep(None, "too-many-abandoned-rounds")
    done = len(record.committed()) >= record.statement.plan.rounds
    if done or stop_reason(record, evaluations):
        return NextStep("evaluate")
    return NextStep("train")


def _why_training_ended(record: RunRecord, evaluations: Evaluations) -> str:
    if len(record.committed()) >= record.statement.plan.rounds:
        return "rounds-done"
    return stop_reason(record, evaluations) or "rounds-done"


def _abandoned_in_a_row(record: RunRecord) -> int:
    count = 0
    for entry in reversed(record.rounds):
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


def seal_reason(current: RoundRecord, quorum: int, now: datetime, lapsed: Sequence[str]) -> str | None:
    """Why the open round takes nothing more: everyone is in, the deadline passed, or only the silent are missing.

    Args:
        quorum: contributions with which the round may go on without members whose lease lapsed.
        lapsed: members of the cohort that have not reported for a lease.
    """
    missing = current.missing
    if not missing:
        return "all-contributed"
    if now >= deadline(current):
        return "deadline-passed"
    if len(current.contributions) >= quorum and set(missing) <= set(lapsed):
        return "leases-lapsed"
    return None


def deadline(current: RoundRecord) -> datetime:
    """When the round's last stage ends."""
    return parse_rfc3339(current.opened.stages[-1].deadline)
