"""Rounds that wait: for this institution while it rests, or for the witnesses. A state, not a failure, which the coordinator
hears of every second."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.clock import rfc3339
from common.errors import InvalidConfiguration, LLMasOSError
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.logs import get_logger
from common.wire.messages import ActivityName, ActivityReport
from participant.hours.pausing import Gatekeeper
from participant.memory.records import Event
from participant.policy import Finding, beyond_rounds, exhausted
from participant.ports import AgentPorts
from participant.reporter import REPORT_SECONDS, report_size
from participant.rounds import stops_now
from participant.sending import REPORTS
from participant.tasks import contribution_slot, waiting_round
from participant.witnessing import Standing

log = get_logger(__name__)

BOOK_SECONDS = 600.0
"""Reports of a round that waits are booked together, so often."""


@dataclass(frozen=True, slots=True)
class Held:
    """A round that waits here, and why."""

    run: RunRecord
    record: RoundRecord
    activity: ActivityName
    until: datetime | None
    spent: tuple[Finding, ...] = ()
    witnesses: Standing | None = None
    """How far they are, where it is them that the round waits for."""

    def as_json(self) -> dict[str, object]:
        """For `status`."""
        return {
            "run": self.run.run,
            "round": self.record.number,
            "state": "witnesses" if self.witnesses else "budget-spent" if self.spent else self.activity,
            "until": rfc3339(self.until) if self.until else "",
            "deadline": self.record.deadline,
            "budgets": [f"{finding.rule}: {finding.got} used, {finding.wanted} allowed" for finding in self.spent],
        } | (_as_json(self.witnesses) if self.witnesses else {})


def _as_json(standing: Standing) -> dict[str, object]:
    return {
        "entry": standing.opening,
        "cosigned_by": standing.cosigned,
        "witnesses": standing.witnesses,
        "witnesses_needed": standing.needed,
    }


class Holding:
    """Which rounds wait, and what the coordinator is told of them; used by the agent's thread."""

    def __init__(self, ports: AgentPorts, gatekeeper: Gatekeeper) -> None:
        self._ports = ports
        self._gatekeeper = gatekeeper
        self._judged: dict[tuple[str, str], tuple[Finding, ...]] = {}
        self._told: dict[str, int] = {}
        self._tell_at = self._book_at = 0.0

    def held(self, state: LedgerState, in_progress: str | None) -> dict[str, Held]:
        """Rounds that must not be worked on now, by their slot.

        Args:
            in_progress: slot of a round that was begun by this process: a pause that is not at once, or a busy machine, let
                it go on to its end.
        """
        found: dict[str, Held] = {}
        for run in state.active_runs:
            record = waiting_round(run, self._ports.institution)
            if record is None:
                continue
            slot = contribution_slot(record)
            why = self._why(run, record, begun=slot == in_progress)
            if why is not None:
                found[slot] = why
        return found

    def _why(self, run: RunRecord, record: RoundRecord, *, begun: bool) -> Held | None:
        signed = self._ports.outbox.contributed(record) is not None
        closed = self._gatekeeper.closed()
        if closed is not None and (stops_now(self._gatekeeper, signed=signed) or not (signed or begun)):
            return Held(run, record, closed.reason, closed.until)
        spent = () if signed else self._spent(run, record)
        if spent:
            return Held(run, record, "paused", None, spent)
        standing = self._ports.witnesses.standing(record)
        return None if standing.may_act else Held(run, record, "waiting", None, witnesses=standing)

    def _spent(self, run: RunRecord, record: RoundRecord) -> tuple[Finding, ...]:
        """Budgets that the run has used up, looked at once before a round, and again under another policy."""
        try:
            loaded = self._ports.policy.current()
        except InvalidConfiguration:
            return ()  # a round that was begun goes on; none begins without a policy, as the gatekeeper says
        key = (contribution_slot(record), loaded.digest)
        if key not in self._judged:
            found = exhausted(loaded.policy, self._ports.usage(run), loaded.lines)
            found += beyond_rounds(loaded.policy, run, record, loaded.lines)
            self._judged = {each: before for each, before in self._judged.items() if each[0] != key[0]} | {key: found}
            if found:
                fields = {"run": run.run, "round": record.number, "codes": [finding.code for finding in found]}
                log.warning("budget spent", extra=fields)
                self._ports.records.note(Event(rfc3339(self._ports.clock.now()), "budget spent", fields))
        return self._judged[key]

    def report(self, held: dict[str, Held]) -> None:
        """Tell the coordinator of the rounds that wait, about every second; what was told is booked."""
        now = self._ports.clock.monotonic()
        if held and now >= self._tell_at:
            self._tell_at = now + REPORT_SECONDS
            for each in held.values():
                self._tell(each)
        if self._told and (not held or now >= self._book_at):
            self._book_at = now + BOOK_SECONDS
            for digest, count in self._told.items():
                self._ports.outbox.book(REPORTS, count, digest)
            self._told = {}

    def _tell(self, held: Held) -> None:
        until = rfc3339(held.until) if held.until else ""
        report = ActivityReport(held.run.run, held.record.number, held.activity, available_at=until)
        digest = held.record.place.digest
        self._told[digest] = self._told.get(digest, 0) + report_size(report)
        try:
            self._ports.session.report(report)
        except LLMasOSError as err:
            log.debug("report failed", extra={"code": err.code})
