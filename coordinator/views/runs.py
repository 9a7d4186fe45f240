"""One run as an operator sees it. Composed four times a second for each watcher, so what cannot change is kept.

A closed round, and what was measured in it, stay as they are: their views are made once. Only the departure of an institution
drops them, since what it measured may be deleted with its deltas, and an operator's deletion of metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.clock import Clock, rfc3339
from common.ledger.state import Departure, LedgerState, Place, RoundRecord, RunRecord
from common.statements.kinds import Refusal
from coordinator.ledger import Ledger
from coordinator.ports import EvaluationView, ParticipantView, RefusalView, RoundView, RunView
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import ROLLED_BACK, Pace, Phase, eta_seconds
from coordinator.watching.board import AWAY, MOVING, Board
from coordinator.watching.metrics import StoredMeasurements, visible

ROUNDS_SHOWN = 500
REFUSALS_SHOWN = 500
"""Newest ones in a view, so that it stays far below the largest message."""
RUNS_KEPT = 64
_GONE = AWAY | {"late", "silent"}


@dataclass(slots=True)
class _Kept:
    """What was composed already of one run."""

    departures: Mapping[str, Departure]
    deletions: int
    rounds: dict[int, RoundView] = field(default_factory=dict)
    refused: tuple[tuple[Place, Refusal], ...] | None = None
    refusals: tuple[RefusalView, ...] = ()


class RunViews:
    """Views of single runs; any thread."""

    def __init__(
        self, ledger: Ledger, engine: Engine, board: Board, measurements: StoredMeasurements, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._engine = engine
        self._board = board
        self._measurements = measurements
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def view(self, state: LedgerState, run: RunRecord) -> RunView:
        """All that an operator sees of a run."""
        current = run.open_round
        participants = tuple(self._participant(run, name) for name in _concerned(state, run))
        with self._lock:
            kept = self._of(state, run)
            rounds = self._rounds(run, kept)
            refusals = _refusals(state, run, kept)
        phase = self._engine.state_of(run).phase
        return RunView(
            run=run.run,
            plan_name=run.statement.plan.name,
            phase=phase.value,
            round=run.current.number if run.current else 0,
            rounds_planned=run.rounds_planned,
            participants=participants,
            rounds=rounds,
            refusals=refusals,
            end_reason=run.ended.reason if run.ended else "",
            model=run.model,
            deadline=current.deadline if current else "",
            quorum=run.statement.plan.quorum,
            opened_at=rfc3339(self._ledger.appended_at(run.current.place)) if run.current else "",
            eta_seconds=0.0 if phase in {Phase.ENDED, Phase.PAUSED} else self._eta(run, participants, rounds),
            protocol_version=run.protocol_version,
        )

    def _of(self, state: LedgerState, run: RunRecord) -> _Kept:
        kept = self._kept.get(run.run)
        deletions = self._measurements.deletions
        if kept is None or kept.departures is not state.departures or kept.deletions != deletions:
            while len(self._kept) >= RUNS_KEPT:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[run.run] = _Kept(state.departures, deletions)
        return kept

    # --- participants ------------------------------------------------------------------------------------------------

    def _participant(self, run: RunRecord, name: str) -> ParticipantView:
        answered = run.answers.get(name)
        current = run.current
        if answered is None:
            return ParticipantView(name, "asked")
        if not answered.answer.accept:
            return ParticipantView(name, "refused", reasons=answered.answer.reasons)
        if current is None or name not in current.opened.cohort:
            return ParticipantView(name, "accepted")
        seen = self._board.seen(run.run, current.number, name)
        down, up = self._board.traffic(run.run, current.number, name)
        state = self._activity(run, current, name)
        if seen is None:
            return ParticipantView(name, state, bytes_down=down, bytes_up=up)
        shows_loss = run.statement.plan.metrics_visibility == "institution"
        total = seen.activity.steps_total  # whoever contributed did them all, reported or not
        return ParticipantView(
            name,
            state,
            steps_done=total if state == "contributed" else seen.activity.steps_done,
            steps_total=total,
            tokens_done=seen.activity.tokens_done,
            bytes_down=down,
            bytes_up=up,
            loss_fixed=seen.activity.loss_fixed if shows_loss else None,
            tokens_per_second=round(seen.tokens_per_second, 1) if state not in AWAY else 0.0,
            available_at=seen.activity.available_at if state in AWAY else "",
            transfer=seen.activity.transfer if state in MOVING else None,
        )

    def _activity(self, run: RunRecord, current: RoundRecord, name: str) -> str:
        if name in current.contributions:
            return "contributed"
        if current.closed is not None:
            return "late"
        if self._board.silent(run.run, current.number, name):
            return "silent"
        seen = self._board.seen(run.run, current.number, name)
        return seen.activity.activity if seen else "idle"

    # --- rounds ------------------------------------------------------------------------------------------------------

    def _rounds(self, run: RunRecord, kept: _Kept) -> tuple[RoundView, ...]:
        shown = run.rounds[-ROUNDS_SHOWN:]
        views = []
        for record in shown:
            view = kept.rounds.get(record.number)
            if view is None or (record.rolled_back and view.outcome != ROLLED_BACK):
                view = self._round(run, record)
                if record.closed is not None:
                    kept.rounds[record.number] = view
            views.append(view)
        for number in [number for number in kept.rounds if number < shown[0].number]:
            del kept.rounds[number]
        return tuple(views)

    def _round(self, run: RunRecord, record: RoundRecord) -> RoundView:
        opened_at = self._ledger.appended_at(record.place)
        until = self._ledger.appended_at(record.closed_place) if record.closed_place else None
        traffic = [self._board.traffic(run.run, record.number, name) for name in record.opened.cohort]
        return RoundView(
            round=record.number,
            task=record.opened.task,
            outcome=_outcome(record),
            cohort=record.opened.cohort,
            contributors=tuple(sorted(record.contributions)),
            seconds=(until - opened_at).total_seconds() if until else 0.0,
            bytes_down=sum(down for down, _ in traffic),
            bytes_up=sum(up for _, up in traffic),
            evaluations=self._shown(run, record),
            reason=record.closed.reason if record.closed else "",
        )

    def _shown(self, run: RunRecord, record: RoundRecord) -> tuple[EvaluationView, ...]:
        """A pool is shown once the round is closed, and while all of it is there: of two that differ by one institution, the
        difference is that one's."""
        visibility = run.statement.plan.metrics_visibility
        if record.closed is None and visibility != "institution":
            return ()
        sums = self._measurements.of_round(record)
        whole = len(sums) == sum(e.contribution.round == record.number for e in record.contributions.values())
        return visible(sums, visibility) if whole or visibility == "institution" else ()

    # --- how long ----------------------------------------------------------------------------------------------------

    def _eta(self, run: RunRecord, participants: Sequence[ParticipantView], rounds: Sequence[RoundView]) -> float:
        current = run.open_round
        closed = [view.seconds for view in rounds if view.task == "train" and view.outcome == "committed"]
        if current is None or current.opened.task != "train":
            return eta_seconds(run.rounds_planned - len(run.committed()), Pace(closed))
        since = (self._clock.now() - self._ledger.appended_at(current.place)).total_seconds()
        cohort = [view for view in participants if view.institution in current.opened.cohort]
        if sum(view.state not in _GONE for view in cohort) < run.statement.plan.quorum:
            return 0.0  # the round waits for somebody who is away
        left = run.rounds_planned - len(run.committed())
        return round(eta_seconds(left, Pace(closed, since, _slowest(cohort))), 1)


def _outcome(record: RoundRecord) -> str:
    if record.closed is None:
        return "open"
    return ROLLED_BACK if record.rolled_back else record.closed.outcome


def _slowest(cohort: Sequence[ParticipantView]) -> float:
    """The share of its steps that the slowest member did that the round waits for; 0 where one did not begin."""
    working = [view for view in cohort if view.state not in {*_GONE, "contributed"}]
    return min((view.steps_done / view.steps_total if view.steps_total else 0.0 for view in working), default=0.0)


def _refusals(state: LedgerState, run: RunRecord, kept: _Kept) -> tuple[RefusalView, ...]:
    if kept.refused is not state.refusal_list:
        kept.refused = state.refusal_list
        kept.refusals = tuple(
            RefusalView(
                place.index,
                refusal.institution,
                refusal.round or 0,
                refusal.code,
                refusal.attribution,
                refusal.refused_sha256,
            )
            for place, refusal in state.refusal_list
            if refusal.run == run.run or (refusal.run is None and _fell_in(run, place))
        )[-REFUSALS_SHOWN:]
    return kept.refusals


def _fell_in(run: RunRecord, place: Place) -> bool:
    """Whether what names no run, such as a text that is no statement at all, was refused while this run went on."""
    return run.place.index < place.index and (run.ended is None or place.index < run.tip.index)


def _concerned(state: LedgerState, run: RunRecord) -> tuple[str, ...]:
    """Trainers, and whoever answered."""
    return tuple(sorted({*state.active_trainers, *run.answers}))
