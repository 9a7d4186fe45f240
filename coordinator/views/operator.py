"""The Views port: composed from ledger state, board, metrics and host; any thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from common.clock import Clock, rfc3339
from common.errors import UnknownObject
from common.ledger.state import LedgerState, RunRecord
from coordinator.ledger import Ledger
from coordinator.ports import CoordinatorStatus, InstitutionView, LogLine, RunView
from coordinator.rounds.engine import Engine
from coordinator.run_desk import find_run
from coordinator.store.database import Database
from coordinator.views.host import CertificateEnds, Host
from coordinator.views.runs import RunViews
from coordinator.watching.board import Board
from coordinator.watching.metrics import StoredMeasurements
from coordinator.watching.run_log import RunLog

WATCH_SECONDS = 0.25
LEAST_SECONDS = 0.2
"""Between two views for one watcher: rounds may follow each other faster than anybody reads, and to compose a view takes time
that the rounds need."""
NEVER = 2**62
"""A size that no ledger reaches."""
REPEAT_SECONDS = 15.0
"""An unchanged view is sent again so often: only by sending does a watch notice that its reader is gone."""
ROUNDS_LISTED = 5
"""Newest rounds and refusals of each run where all runs are listed, in one message."""
CONNECTED_SECONDS = 60.0
"""A trainer that was heard of so recently counts as connected; its long polls last half as long."""


class OperatorViews:
    """What operators see."""

    def __init__(
        self, ledger: Ledger, engine: Engine, board: Board, database: Database, clock: Clock, *, host: Host
    ) -> None:
        self._ledger = ledger
        self._board = board
        self._database = database
        self._clock = clock
        self._host = host
        self._certificates = CertificateEnds(database, host)
        self._runs = RunViews(ledger, engine, board, StoredMeasurements(ledger, database), clock)
        self._log = RunLog(ledger, database, board)

    def institutions(self) -> tuple[InstitutionView, ...]:
        """Members, then those who are invited."""
        roster = self._ledger.state.roster
        ends = self._certificates.of(roster)
        views = []
        for member in roster.members if roster else ():
            seen, end = self._board.last_seen(member.name), ends.get(member.name)
            views.append(
                InstitutionView(
                    member.name,
                    member.roles,
                    member.status,
                    rfc3339(seen) if seen else "",
                    rfc3339(end) if end else "",
                )
            )
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

    def view(self, state: LedgerState, run: RunRecord) -> RunView:
        """All that an operator sees of a run."""
        return self._runs.view(state, run)

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
            # The estimate runs down by itself: it goes along with other changes.
            if replace(view, eta_seconds=0.0) != before or now - sent_at >= REPEAT_SECONDS:
                yield view
                before, sent_at = replace(view, eta_seconds=0.0), now
            if record.ended is not None:
                return
            self._ledger.wait_for_growth(state.size, WATCH_SECONDS)
            self._pause(now + LEAST_SECONDS - self._clock.monotonic())

    def _pause(self, seconds: float) -> None:
        """Let more happen before the next view; what came meanwhile is in it."""
        if seconds > 0:
            self._ledger.wait_for_growth(NEVER, min(seconds, LEAST_SECONDS))

    def logs(self, run: str, institution: str, *, follow: bool) -> Iterator[LogLine | None]:
        """The run's events, oldest first; with `follow` also new ones, until it ended, and None between them.

        Raises:
            UnknownObject: no run, or more than one, has this prefix; no such member.
        """
        state = self._ledger.state
        name = find_run(state, run).run
        if institution and state.member(institution) is None:
            known = ", ".join(member.name for member in state.roster.members) if state.roster else "nobody"
            raise UnknownObject(f"No member is named {institution!r}; members here: {known}.")
        return self._log.lines(name, institution, follow=follow)

    def status(self) -> CoordinatorStatus:
        """How the coordinator itself is."""
        state, now, host = self._ledger.state, self._clock.now(), self._host
        seen = (self._board.last_seen(name) for name in state.active_trainers)
        authority, own = self._certificates.authority(state.genesis), self._certificates.own()
        return CoordinatorStatus(
            consortium=state.genesis.consortium,
            version=host.version,
            started_at=rfc3339(host.started_at),
            now=rfc3339(now),
            ledger_size=state.size,
            members_active=sum(member.status == "active" for member in state.roster.members) if state.roster else 0,
            trainers_connected=sum(
                moment is not None and (now - moment).total_seconds() <= CONNECTED_SECONDS for moment in seen
            ),
            runs_active=len(state.active_runs),
            blob_bytes=host.blob_bytes(),
            disk_free_bytes=host.disk_free_bytes(),
            certificate_expires_at=rfc3339(own),
            authority_expires_at=rfc3339(authority),
            open_calls=host.open_calls(),
            fingerprint=state.genesis_place.digest,
            recovering=host.recovering(),
        )
