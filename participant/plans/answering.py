"""What this institution says to a plan: its policy, what a person decided, and whether its data is enough."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from common.clock import rfc3339
from common.errors import LLMasOSError, TooLittleData, UnsupportedProtocol
from common.ledger.state import LedgerState, RunRecord
from common.logs import get_logger
from common.statements.versions import SPOKEN
from participant.bench.workbench import RoundOver
from participant.datasets import data_sets_for
from participant.memory.orders import Decision
from participant.memory.records import Event
from participant.plans.deciding import DECLINED
from participant.policy import Finding, LoadedPolicy, expected_usage, judge, verdict
from participant.ports import AgentPorts
from participant.rounds import Preparation
from participant.tasks import answer_slot, unanswered
from participant.watching import End, Interrupted, Watch

log = get_logger(__name__)

SEEN_SECONDS = 10.0
RETRY_SECONDS = 30.0
NO_DATA = "no-data"
UNSUPPORTED = UnsupportedProtocol.code
DATA_CODES = {
    "too-little-data": "too-little-data",
    "unreadable-data": "unreadable-data",
    "usage": "unreadable-data",  # a folder that does not exist any more
    "missing-extra": "missing-extra",
    "worker-failed": "worker-failed",
    "out-of-memory": "out-of-memory",
    "invalid-configuration": "invalid-configuration",  # the plan does not go with its tokenizer, or with this worker
    "wrong-tensors": "wrong-tensors",
}
"""Why data or plan do not do, as an answer says it, by the error's code."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A plan that is not answered yet, and what it waits for."""

    run: str
    why: str
    for_person: bool

    @property
    def command(self) -> str:
        """What a person may type; empty where nothing is to be typed."""
        return f"llmasos-participant plan accept {self.run}" if self.for_person else ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """An answer before it is signed."""

    accept: bool
    reasons: tuple[str, ...] = ()
    agreement: str | None = None
    by: Literal["policy", "person"] = "policy"


class Answering:
    """Answers plans; used by the agent's thread."""

    def __init__(self, ports: AgentPorts, preparation: Preparation) -> None:
        self._ports = ports
        self._preparation = preparation
        self._stopping = threading.Event()
        self._trouble: dict[str, tuple[float, str]] = {}
        self._noted: dict[str, str] = {}

    def begin(self, stopping: threading.Event) -> None:
        """From now on the data's preparation ends when that event is set."""
        self._stopping = stopping

    # --- whether an answer is due ------------------------------------------------------------------------------------

    def wanted(self, run: RunRecord) -> bool:
        """Whether this plan is answered even after its first round was opened."""
        return self._decision(run) is not None or self._ports.outbox.answered(run) is not None

    def waiting(self, state: LedgerState) -> dict[str, Waiting]:
        """Unanswered plans that must wait, by their slot."""
        member = state.member(self._ports.institution)
        if member is None or "trainer" not in member.roles:
            return {}
        found = {answer_slot(run): self._waits(run) for run in unanswered(state, self._ports.institution)}
        return {slot: waits for slot, waits in found.items() if waits is not None}

    def _waits(self, run: RunRecord) -> Waiting | None:
        if self._ports.outbox.answered(run) is not None:
            return None
        if self._ports.orders.get("leave") is not None:
            return Waiting(run.run, "this institution leaves", for_person=False)
        if SPOKEN.answer_to(run.statement.protocol_versions) is None:
            return None  # neither policy nor a person can accept it
        decision = self._decision(run)
        if decision is not None:
            return self._waits_in_trouble(run, decision)
        try:
            loaded = self._ports.policy.current()
        except LLMasOSError as err:
            return Waiting(run.run, f"the policy cannot be read: {err.message}", for_person=True)
        said = verdict(loaded.policy, self._findings(loaded, run))
        if said == "ask":
            return Waiting(run.run, "a person decides", for_person=True)
        if said == "accept" and self._ports.gatekeeper.paused() is not None:
            return Waiting(run.run, "paused by a person; the policy would accept", for_person=False)
        return None

    def _waits_in_trouble(self, run: RunRecord, decision: Decision) -> Waiting | None:
        """A person's acceptance that this institution's data does not allow yet is tried again from time to time."""
        until, message = self._trouble.get(decision.plan + decision.at, (0.0, ""))
        if self._ports.clock.monotonic() >= until:
            return None
        return Waiting(run.run, f"accepted by a person, but: {message}", for_person=False)

    def _decision(self, run: RunRecord) -> Decision | None:
        return self._ports.orders.decision(run.place.digest)

    def _findings(self, loaded: LoadedPolicy, run: RunRecord) -> tuple[Finding, ...]:
        usage = expected_usage(run.statement, self._ports.mirror.state.runs, self._ports.records)
        return judge(loaded.policy, run.statement, usage, loaded.lines)

    # --- answering ---------------------------------------------------------------------------------------------------

    def answer(self, run: RunRecord) -> bool:
        """Answer a plan (docs/protocol.md#answers); whether there was an answer to give.

        Raises:
            Interrupted, RoundOver: the data's preparation was stopped.
            LLMasOSError: what keeps an answer from being made or sent.
        """
        self._ports.status.doing("answering a plan", run=run.run)
        signed = self._ports.outbox.answered(run)
        if signed is None:
            resolution = self._resolve(run)
            if resolution is None:
                return False
            availability = self._availability() if resolution.accept else ()
            signed = self._ports.outbox.sign_answer(
                run,
                accept=resolution.accept,
                protocol_version=SPOKEN.answer_to(run.statement.protocol_versions) or SPOKEN.most,
                reasons=resolution.reasons,
                agreement=resolution.agreement,
                availability=availability,
            )
            self._note(run, resolution)
        index = self._ports.outbox.send_answer(run, signed)
        self._ports.mirror.wait_beyond(index, SEEN_SECONDS)
        return True

    def _resolve(self, run: RunRecord) -> Resolution | None:
        offered = run.statement.protocol_versions
        if SPOKEN.answer_to(offered) is None:
            log.error(
                "protocol version not spoken",
                extra={"run": run.run, "offered": str(offered), "spoken": str(SPOKEN)},
            )
            return Resolution(False, (UNSUPPORTED,))
        decision = self._decision(run)
        if decision is not None:
            return self._by_person(run, decision)
        loaded = self._ports.policy.current()
        findings = self._findings(loaded, run)
        said = verdict(loaded.policy, findings)
        if said == "ask":
            return None
        if said == "refuse":
            for finding in findings:
                extra = {"run": run.run, "rule": finding.rule, "wanted": finding.wanted, "got": finding.got}
                log.info("policy refuses", extra=extra)
            return Resolution(False, _distinct(finding.code for finding in findings))
        trouble = self._data_trouble(run)
        if trouble is not None:
            return Resolution(False, (trouble[0],))
        return Resolution(True, agreement=loaded.policy.agreement)

    def _by_person(self, run: RunRecord, decision: Decision) -> Resolution | None:
        """A refusal as it was decided; an acceptance once the data does, for a person may mend that."""
        if not decision.accept:
            return Resolution(False, _distinct(decision.reasons or (DECLINED,)), by="person")
        trouble = self._data_trouble(run)
        if trouble is not None:
            until = self._ports.clock.monotonic() + RETRY_SECONDS
            self._trouble[decision.plan + decision.at] = (until, trouble[1])
            return None
        return Resolution(True, agreement=decision.agreement or self._policys_agreement(), by="person")

    def _policys_agreement(self) -> str | None:
        loaded = self._policy()
        return loaded.policy.agreement if loaded is not None else None

    def _availability(self) -> tuple[str, ...]:
        loaded = self._policy()
        return loaded.policy.windows if loaded is not None else ()

    def _policy(self) -> LoadedPolicy | None:
        """The policy, where one can be read: a person's decision needs none."""
        try:
            return self._ports.policy.current()
        except LLMasOSError:
            return None

    def _data_trouble(self, run: RunRecord) -> tuple[str, str] | None:
        """Why the data here does not do for this plan: a code, and a sentence for this institution.

        While the worker has to rest nothing is read: the answer would be late for it, and the first round looks anyway.
        """
        try:
            data_sets_for(run.statement.plan.task, self._ports.data())
        except TooLittleData as err:
            return self._told(run, NO_DATA, err)
        if self._ports.gatekeeper.closed() is not None:
            log.info("data not looked at before the answer", extra={"run": run.run})
            return None
        self._ports.status.doing("preparing data", run=run.run)
        try:
            self._prepare(run)
        except LLMasOSError as err:
            if err.code not in DATA_CODES:
                raise
            return self._told(run, DATA_CODES[err.code], err)
        return None

    def _told(self, run: RunRecord, code: str, err: LLMasOSError) -> tuple[str, str]:
        """For this institution's people: the daemon's log, and what `llmasos-participant log` shows."""
        fields = {"run": run.run, "code": err.code, "error": err.message, "fix": err.fix}
        log.error("data does not do", extra=fields)
        if self._noted.get(run.run) != err.message:  # a person's acceptance is tried again and again
            self._noted[run.run] = err.message
            self._ports.records.note(Event(rfc3339(self._ports.clock.now()), "data does not do", fields))
        return code, err.message

    def _prepare(self, run: RunRecord) -> None:
        def reason(state: LedgerState) -> End | None:
            closed = self._ports.gatekeeper.closed()
            if self._stopping.is_set():
                return "stopping"
            if state.runs[run.run].ended is not None:
                return "over"
            return "interrupted" if closed is not None and closed.now else None

        with Watch(self._ports.mirror, threading.Event(), reason) as watch:
            try:
                self._preparation.prepare(run, watch.over)
            except RoundOver:
                if watch.why == "interrupted":
                    raise Interrupted from None
                raise

    def _note(self, run: RunRecord, resolution: Resolution) -> None:
        fields = {
            "run": run.run,
            "accept": resolution.accept,
            "reasons": list(resolution.reasons),
            "by": resolution.by,
            "protocol_version": SPOKEN.answer_to(run.statement.protocol_versions) or 0,
        }
        log.info("plan answered", extra=fields)
        self._ports.records.note(Event(rfc3339(self._ports.clock.now()), "plan answered", fields))


def _distinct(codes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(codes)))
