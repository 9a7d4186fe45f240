"""`run logs`: a run's events, oldest first.

    the ledger     plan-sent, answered, round-opened, contributed, refused, round-closed, control, run-ended, attested, released
    the seals      sealed
    the board      activity: what institutions began to do, as far as this process saw and remembers it

The ledger is read as it is stored, a batch at a time, so a log of any length takes little memory. Times are the coordinator's:
when a statement became durable, a report came. Nothing here is more than what the operator may see of the run elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from common.clock import parse_rfc3339, rfc3339
from common.ledger.state import RoundRecord, RunRecord
from common.statements.envelope import parse
from common.statements.kinds import (
    Answer,
    Attestation,
    ClearWeight,
    Contribution,
    Control,
    PlanStatement,
    Predicate,
    Refusal,
    Release,
    RoundClosed,
    RoundOpened,
)
from coordinator.ledger import Ledger
from coordinator.ports import LogLine
from coordinator.store.database import Database, LedgerRow
from coordinator.watching import wording
from coordinator.watching.activities import ActivityChange
from coordinator.watching.board import Board

FOLLOW_SECONDS = 0.5
"""How often new activities are looked for where the ledger does not grow."""
DIGEST_SHOWN = 16

_Timed = tuple[datetime, int, LogLine]
"""When, which of two at the same time comes first, and the line."""


@dataclass(slots=True)
class _Cursor:
    """How far a reader is."""

    index: int
    change: int = 0
    sealed: set[int] = field(default_factory=set)
    """Rounds whose sealing was written."""


class RunLog:
    """Logs of runs; any thread."""

    def __init__(self, ledger: Ledger, database: Database, board: Board) -> None:
        self._ledger = ledger
        self._database = database
        self._board = board

    def lines(self, run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        """The events of the run with that id, only an institution's if one is named; with `follow` on until it ended.

        None each time that all was told and nothing new came: the moment to see whether the reader is still there.
        """
        cursor = _Cursor(self._ledger.state.runs[run].place.index)
        while True:
            state = self._ledger.state
            changes = self._board.changes(run, cursor.change)
            for _, _, line in heapq.merge(self._statements(run, cursor, state.size), map(_activity, changes)):
                if institution in {"", line.institution}:
                    yield line
            cursor.change = changes[-1].number if changes else cursor.change
            if not follow or state.runs[run].ended is not None:
                return
            yield None
            self._ledger.wait_for_growth(state.size, FOLLOW_SECONDS)

    def _statements(self, run: str, cursor: _Cursor, size: int) -> Iterator[_Timed]:
        """What the ledger says from the cursor up to `size`, and what was sealed."""
        record = self._ledger.state.runs[run]
        while cursor.index < size:
            for row in self._database.envelopes(cursor.index):
                if row.index >= size:
                    break
                cursor.index = row.index + 1
                yield from self._of_row(record, row, cursor)
        current = record.open_round
        if current is not None and current.place.index < cursor.index:
            yield from self._sealed(current, cursor)

    def _of_row(self, record: RunRecord, row: LedgerRow, cursor: _Cursor) -> Iterator[_Timed]:
        predicate = parse(row.envelope).predicate
        if getattr(predicate, "run", None) != record.run:
            return
        if isinstance(predicate, RoundClosed):
            yield from self._sealed(record.rounds[predicate.round - 1], cursor)
        line = _line(row, predicate)
        if line is not None:
            yield parse_rfc3339(row.appended_at), 0, line

    def _sealed(self, current: RoundRecord, cursor: _Cursor) -> Iterator[_Timed]:
        at, reason = self._ledger.sealed_at(current.place.digest), self._ledger.seal_of(current.place.digest)
        if at is None or reason is None or current.number in cursor.sealed:
            return
        cursor.sealed.add(current.number)
        missing = f"; not in: {' '.join(current.missing)}" if current.missing else ""
        yield at, 0, LogLine(rfc3339(at), current.number, "", "sealed", f"{reason}{missing}")


def _line(row: LedgerRow, predicate: Predicate) -> LogLine | None:
    """The line of one statement of a run; None for kinds that are about no run."""

    def line(event: str, text: str, institution: str = "", number: int = 0) -> LogLine:
        return LogLine(row.appended_at, number, institution, event, f"{text} [ledger {row.index}]")

    match predicate:
        case PlanStatement():
            plan = predicate.plan
            return line("plan-sent", f"{plan.name}: {plan.rounds} rounds, quorum {plan.quorum}")
        case Answer():
            verdict = "accepted" if predicate.accept else "refused"
            reasons = f": {' '.join(predicate.reasons)}" if predicate.reasons else ""
            hours = f"; available {', '.join(predicate.availability)}" if predicate.availability else ""
            return line("answered", f"{verdict}{reasons}{hours}", predicate.institution)
        case RoundOpened():
            text = f"{predicate.task}, cohort {' '.join(predicate.cohort)}, until {predicate.stages[-1].deadline}"
            return line("round-opened", text, number=predicate.round)
        case Contribution():
            text = _contributed(predicate)
            return line("contributed", text, predicate.institution, predicate.round)
        case Refusal():
            text = wording.refused(predicate.code, round_number=predicate.round or 0)
            text += f", {wording.attributed(predicate.attribution, predicate.institution)}"
            text += f", sha256 {predicate.refused_sha256[:DIGEST_SHOWN]}"
            return line("refused", text, predicate.institution, predicate.round or 0)
        case RoundClosed():
            text = f"{predicate.outcome}: {predicate.reason}, {len(predicate.inputs)} contributions"
            return line("round-closed", text, number=predicate.round)
        case Control(action="run-ended"):
            return line("run-ended", predicate.reason)
        case Control():
            return line("control", f"{predicate.action}: {predicate.reason}", number=predicate.round or 0)
        case Attestation():
            text = f"recomputed: {predicate.result}, model {predicate.model.root[:DIGEST_SHOWN]}"
            return line("attested", text, predicate.institution, predicate.round)
        case Release():
            text = f"model {predicate.model.root[:DIGEST_SHOWN]}, {len(predicate.files)} files"
            return line("released", text, number=predicate.round)
    return None


def _contributed(predicate: Contribution) -> str:
    sizes = [f"{name} {ref.size:,} bytes" for name, ref in sorted(predicate.blobs.items())]
    tokens = predicate.weight.num_tokens if isinstance(predicate.weight, ClearWeight) else 0
    parts = [*([f"{tokens:,} tokens"] if tokens else []), *(sizes or ["measurement only"])]
    deviations = f"; deviations {' '.join(predicate.deviations)}" if predicate.deviations else ""
    return ", ".join(parts) + deviations


def _activity(change: ActivityChange) -> _Timed:
    text = change.activity
    if change.available_at:
        text += f" until {change.available_at}"
    if change.steps_total and change.steps_done:
        text += f", {change.steps_done}/{change.steps_total} steps"
    line = LogLine(rfc3339(change.at), change.round, change.institution, "activity", text)
    return change.at, change.number, line
