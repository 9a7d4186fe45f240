"""Read models for operators: what `institution list`, `run list` and `run watch` show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from common.clock import Clock, rfc3339
from common.errors import UnknownObject
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from coordinator.board import Board
from coordinator.desk import find_run
from coordinator.ledger import Ledger
from coordinator.metrics import StoredMeasurements, visible
from coordinator.ports import EvaluationView, InstitutionView, ParticipantView, RefusalView, RoundView, RunView
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import Evaluations
from coordinator.store.database import Database

WATCH_SECONDS = 0.25
REPEAT_SECONDS = 15.0
"""An unchanged view is sent again so often: only by sending does a watch notice that its reader is gone."""
ROUNDS_SHOWN = 500
REFUSALS_SHOWN = 500
"""Newest ones in a view, so that it stays far below the largest message."""
ROUNDS_LISTED = 5
"""Newest rounds and refusals of each run where all runs are listed, in one message."""


class OperatorViews:
    """The Views port: composed from ledger state, board and metrics; any thread."""

    def __init__(self, ledger: Ledger, engine: Engine, board: Board, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._engine = engine
        self._board = board
        self._database = database
        self._clock = clock
        self._measurements = StoredMeasurements(ledger, database)

    def institutions(self) -> tuple[InstitutionView, ...]:
        """Members, then those who are invited."""
        roster = self._ledger.state.roster
        views = []
        for member in roster.members if roster else ():
            seen = self._board.last_seen(member.name)
            views.append(InstitutionView(member.name, member.roles, member.status, rfc3339(seen) if seen else ""))
        now = rfc3339(self._clock.now())
        for row in self._database.invitations():
            if row.redeemed_by is None:
                status = "invited" if now < row.expires_at else "expired"
                views.append(InstitutionView(row.institution, tuple(row.roles.split(",")), status, ""))
        return tuple(views)

    def runs(self) -> tuple[RunView, ...]:
        """Every run, oldest first; of each the newest rounds."""
        state = self._ledger.state
        views = (self.view(state, run) for run in state.runs.values())
        return tuple(
            replace(view, rounds=view.rounds[-ROUNDS_LISTED:], refusals=view.refusals[-ROUNDS_LISTED:])
            for view in views
        )

    def watch(self, run: str) -> Iterator[RunView]:
        """The run's view now, then at each change, until it ended.

        Raises:
            UnknownObject: no run, or more than one, has this prefix.
        """
        name = find_run(self._ledger.state, run).run
        return self._changes(name)

    def _changes(self, name: str) -> Iterator[RunView]:
        before: RunView | None = None
        sent_at = 0.0
        while True:
            state = self._ledger.state
            record = state.runs.get(name)
            if record is None:
                raise UnknownObject(f"Run {name} is gone.")
            view = self.view(state, record)
            now = self._clock.monotonic()
            if view != before or now - sent_at >= REPEAT_SECONDS:
                yield view
                before, sent_at = view, now
            if record.ended is not None:
                return
            self._ledger.wait_for_growth(state.size, WATCH_SECONDS)

    def view(self, state: LedgerState, run: RunRecord) -> RunView:
        """All that an operator sees of a run."""
        evaluations = self._measurements.evaluations(run.run)
        current = run.open_round
        return RunView(
            run=run.run,
            plan_name=run.statement.plan.name,
            phase=self._engine.state_of(run).phase.value,
            round=run.current.number if run.current else 0,
            rounds_planned=run.statement.plan.rounds,
            participants=tuple(self._participant(run, name) for name in _concerned(state, run)),
            rounds=tuple(self._round(run, record, evaluations) for record in run.rounds[-ROUNDS_SHOWN:]),
            refusals=tuple(
                RefusalView(place.index, refusal.institution, refusal.round or 0, refusal.code, refusal.attribution)
                for place, refusal in state.refusal_list
                if refusal.run == run.run
            )[-REFUSALS_SHOWN:],
            end_reason=run.ended.reason if run.ended else "",
            model=run.model,
            deadline=current.opened.stages[-1].deadline if current else "",
        )

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
        return ParticipantView(
            name,
            state,
            steps_done=seen.activity.steps_done,
            steps_total=seen.activity.steps_total,
            tokens_done=seen.activity.tokens_done,
            bytes_down=down,
            bytes_up=up,
            loss_fixed=seen.activity.loss_fixed if shows_loss else None,
            tokens_per_second=round(seen.tokens_per_second, 1),
        )

    def _activity(self, run: RunRecord, current: RoundRecord, name: str) -> str:
        if name in current.contributions:
            return "contributed"
        if current.closed is not None:
            return "late"
        if self._board.lapsed(run.run, current.number, (name,)):
            return "silent"
        seen = self._board.seen(run.run, current.number, name)
        return seen.activity.activity if seen else "idle"

    def _round(self, run: RunRecord, record: RoundRecord, evaluations: Evaluations) -> RoundView:
        opened_at = self._ledger.appended_at(record.place)
        until = self._ledger.appended_at(record.closed_place) if record.closed_place else None
        traffic = [self._board.traffic(run.run, record.number, name) for name in record.opened.cohort]
        return RoundView(
            round=record.number,
            task=record.opened.task,
            outcome=record.closed.outcome if record.closed else "open",
            cohort=record.opened.cohort,
            contributors=tuple(sorted(record.contributions)),
            seconds=(until - opened_at).total_seconds() if until else 0.0,
            bytes_down=sum(down for down, _ in traffic),
            bytes_up=sum(up for _, up in traffic),
            evaluations=_shown(run, record, evaluations),
            reason=record.closed.reason if record.closed else "",
        )


def _shown(run: RunRecord, record: RoundRecord, evaluations: Evaluations) -> tuple[EvaluationView, ...]:
    """A pool is shown once the round is closed: of two that differ by one institution, the difference is that one's."""
    visibility = run.statement.plan.metrics_visibility
    if record.closed is None and visibility != "institution":
        return ()
    return visible(evaluations.get(record.number, ()), visibility)


def _concerned(state: LedgerState, run: RunRecord) -> tuple[str, ...]:
    """Trainers, and whoever answered."""
    return tuple(sorted({*state.active_trainers, *run.answers}))
