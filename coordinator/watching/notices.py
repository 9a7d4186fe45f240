"""What is worth telling somebody: notices, made from what the ledger, the board and the certificates say, each once.

    watch = NoticeWatch(sources, clock)
    for notice in watch.look():                        # again and again; the ledger's newest state decides, not when one looks
        …

A notice names institutions, runs, rounds and codes: all of it stands in the ledger or in an operator's views, and nothing else
has a field here. It is no record: what matters is in the ledger, and notices begin anew with the process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from common.clock import Clock, parse_rfc3339
from common.ledger.state import LedgerState, RunRecord
from coordinator.config import WebhookEvent
from coordinator.ledger import Ledger
from coordinator.ports import CoordinatorStatus, InstitutionView
from coordinator.store.database import InvitationRow
from coordinator.watching.board import Board

OVERDUE = timedelta(seconds=10)
"""How long after its deadline a round may still be unsealed before somebody is told."""
EXPIRY_EVERY_SECONDS = 60.0
WARNINGS: tuple[tuple[timedelta, str, str], ...] = (
    (timedelta(0), "expired", "has expired"),
    (timedelta(days=1), "expires-in-1-day", "expires within a day"),
    (timedelta(days=7), "expires-in-7-days", "expires within seven days"),
)
"""What is said with how much time left; the first that fits."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened. Empty fields say that the notice has none; `ledger_index` is the statement that says it."""

    event: WebhookEvent
    code: str
    text: str
    run: str = ""
    round: int = 0
    institution: str = ""
    ledger_index: int | None = None


class People(Protocol):
    """What is asked of the operator's views."""

    def institutions(self) -> tuple[InstitutionView, ...]: ...

    def status(self) -> CoordinatorStatus: ...


class Invitations(Protocol):
    """What is asked of the state database."""

    def invitations(self) -> Sequence[InvitationRow]: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What is looked at; any thread may."""

    ledger: Ledger
    board: Board
    people: People
    invitations: Invitations


class NoticeWatch:
    """Begins with what is: only what happens from now on is told, but for certificates that end soon. One thread."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock
        self._before = sources.ledger.state
        self._told: set[tuple[str, ...]] = set()
        self._expiry_at = -EXPIRY_EVERY_SECONDS
        self._remaining: dict[str, timedelta] = {}

    def look(self) -> list[Notice]:
        """What is new since the last look."""
        before, after, now = self._before, self._sources.ledger.state, self._clock.now()
        self._before = after
        found = [*_refusals(before, after), *_runs_ended(before, after), *_members(before, after)]
        found += self._once(itertools.chain(self._overdue(after, now), self._silent(after)))
        if self._clock.monotonic() - self._expiry_at >= EXPIRY_EVERY_SECONDS:
            self._expiry_at = self._clock.monotonic()
            found += self._once(itertools.chain(self._certificates(now), self._invitations(now)))
        return found

    def _once(self, notices: Iterator[tuple[tuple[str, ...], Notice]]) -> list[Notice]:
        fresh = []
        for key, notice in notices:
            if key not in self._told:
                self._told.add(key)
                fresh.append(notice)
        return fresh

    # --- stalls ------------------------------------------------------------------------------------------------------

    def _overdue(self, state: LedgerState, now: datetime) -> Iterator[tuple[tuple[str, ...], Notice]]:
        for run in state.active_runs:
            current = run.open_round
            if current is None or self._sources.ledger.seal_of(current.place.digest) is not None:
                continue
            if now >= parse_rfc3339(current.deadline) + OVERDUE:
                text = f"Round {current.number} of {run.run} is past its deadline and not sealed."
                yield ("overdue", current.place.digest), _of_round(run, Notice("stall", "round-overdue", text))

    def _silent(self, state: LedgerState) -> Iterator[tuple[tuple[str, ...], Notice]]:
        for run in state.active_runs:
            current = run.open_round
            if current is None or self._sources.ledger.seal_of(current.place.digest) is not None:
                continue
            for name in current.missing:
                if state.is_active(name) and self._sources.board.silent(run.run, current.number, name):
                    text = f"Round {current.number} of {run.run} waits for {name}, which has not reported for a lease."
                    notice = replace(_of_round(run, Notice("stall", "institution-silent", text)), institution=name)
                    yield ("silent", current.place.digest, name), notice

    # --- what ends ---------------------------------------------------------------------------------------------------

    def _certificates(self, now: datetime) -> Iterator[tuple[tuple[str, ...], Notice]]:
        status = self._sources.people.status()
        held = [("", "The coordinator's certificate", status.certificate_expires_at)]
        held.append(("", "The authority's certificate", status.authority_expires_at))
        for view in self._sources.people.institutions():
            if view.status == "active":
                held.append((view.name, f"The certificate of {view.name}", view.certificate_expires_at))
        for name, what, moment in held:
            warning = _warning(parse_rfc3339(moment) - now) if moment else None
            if warning is not None:
                code, words = warning
                text = f"{what} {words}: {moment}."
                yield (what, moment, code), Notice("certificate-expiry", code, text, institution=name)

    def _invitations(self, now: datetime) -> Iterator[tuple[tuple[str, ...], Notice]]:
        """Told when an open invitation comes closer to its end, not because it was made for a short time."""
        remaining: dict[str, timedelta] = {}
        for row in self._sources.invitations.invitations():
            if row.redeemed_by is not None:
                continue
            left = remaining[row.id] = parse_rfc3339(row.expires_at) - now
            first, warning = self._remaining.get(row.id), _warning(left)
            if first is not None and warning is not None and warning != _warning(first):
                code, words = warning
                text = f"The invitation of {row.institution}, which nobody has redeemed, {words}: {row.expires_at}."
                yield (row.id, code), Notice("invitation-expiry", code, text, institution=row.institution)
        self._remaining = remaining


# --- what the ledger tells ---------------------------------------------------------------------------------------------------


def _refusals(before: LedgerState, after: LedgerState) -> Iterator[Notice]:
    """The ledger holds at most one for each institution, round and code."""
    for place, refusal in after.refusal_list[len(before.refusal_list) :]:
        where = f" in round {refusal.round}" if refusal.round else ""
        name = refusal.institution
        who = f"signed by {name}" if refusal.attribution == "signed-by" else f"sent on {name}'s connection"
        text = f"What was {who} was refused{where}: {refusal.code}."
        yield Notice("refusal", refusal.code, text, refusal.run or "", refusal.round or 0, name, place.index)


def _runs_ended(before: LedgerState, after: LedgerState) -> Iterator[Notice]:
    for name, run in after.runs.items():
        old = before.runs.get(name)
        if run.ended is not None and (old is None or old.ended is None):
            number = run.current.number if run.current else 0
            text = f"Run {name} ended: {run.ended.reason}."
            yield Notice("run-ended", run.ended.reason, text, name, number)


def _members(before: LedgerState, after: LedgerState) -> Iterator[Notice]:
    index = after.roster_place.index if after.roster_place else None
    for member in after.roster.members if after.roster else ():
        old = before.member(member.name)
        if old is None or old.status != member.status:
            code = "joined" if member.status == "active" else member.status
            text = f"{member.name} {_MEMBERSHIP.get(code, f'is now {code}')}."
            yield Notice("membership", code, text, institution=member.name, ledger_index=index)
    for name, departure in after.departures.items():
        if name not in before.departures:
            text = f"{name} said that it leaves; its deltas are being deleted."
            yield Notice("membership", "leaving", text, institution=name, ledger_index=departure.place.index)


_MEMBERSHIP = {"joined": "joined the consortium", "left": "left the consortium", "revoked": "was revoked"}


def _of_round(run: RunRecord, notice: Notice) -> Notice:
    current = run.open_round
    if current is None:
        return replace(notice, run=run.run)
    return replace(notice, run=run.run, round=current.number, ledger_index=current.place.index)


def _warning(left: timedelta) -> tuple[str, str] | None:
    """Code and words for the time that is left, or None where there is plenty."""
    return next(((code, words) for bound, code, words in WARNINGS if left <= bound), None)
