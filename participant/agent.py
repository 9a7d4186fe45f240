"""The agent: follows the ledger, answers plans, works on rounds. One loop, and it starts the same after any crash.

What it knows comes from its own verified copy of the ledger (memory/mirror.py); what it signed is in its journal before it is
sent; what people order stands beside it (memory/orders.py). Keys and network are here, data and torch in the worker.
"""

from __future__ import annotations

import threading
from collections import Counter

from common.clock import rfc3339
from common.errors import (
    BlobError,
    CoordinatorUnreachable,
    LLMasOSError,
    RefusalError,
    StorageFailure,
    TooManyRequests,
    WorkerKilled,
)
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.logs import get_logger
from participant.bench.workbench import RoundOver
from participant.hours.gate import Closed
from participant.hours.holding import Held, Holding
from participant.memory.records import Event
from participant.plans.answering import Answering
from participant.ports import AgentPorts
from participant.rounds import Preparation, Rounds
from participant.tasks import AnswerPlan, Task, answer_slot, contribution_slot, next_task, waiting_round
from participant.tidying import Tidying
from participant.watching import Interrupted

log = get_logger(__name__)

IDLE_SECONDS = 1.0
MAX_ATTEMPTS = 3
MAX_KILLED = 20
"""So often a worker may be ended from outside at one task: that says nothing of the task."""
MOST_WAIT_SECONDS = 30.0
"""Between attempts that say nothing of the task. A disk that is full, here or at the coordinator, is waited for as long as the
round is open: somebody will make room."""
WAITING = "waiting for a plan or a round"
RECOVERING = "waiting for the coordinator, which takes back what institutions saw"
CATCHING_UP = "catching up with the ledger after a restore; nothing is signed before"


class Agent:
    """`run` until its event is set."""

    def __init__(self, ports: AgentPorts) -> None:
        self._ports = ports
        self._mirror = ports.mirror
        self._tidying = Tidying(ports)
        preparation = Preparation(ports)
        self._answering = Answering(ports, preparation)
        self._rounds = Rounds(ports, preparation, self._tidying.tidy)
        self._holding = Holding(ports, ports.gatekeeper)
        self._given_up: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._begun: str | None = None
        self._recoveries = 0
        self._last_rounds: frozenset[str] | None = None
        self._stopping = threading.Event()

    def run(self, stopping: threading.Event) -> None:
        """Answer plans and work on rounds as the ledger brings them; until `stopping`, or until the institution has left.

        Raises:
            LLMasOSError: the ledger conflicts with what was seen, or this institution's certificate is refused for good.
        """
        self._stopping = stopping
        self._answering.begin(stopping)
        self._rounds.begin(stopping)
        for damaged in self._ports.blobs.discard_damaged():
            log.warning("blob damaged on disk", extra={"root": damaged.root})
        while not stopping.is_set():
            if self._ports.follower.failure is not None:
                raise self._ports.follower.failure
            wakes = self._mirror.wakes  # before anything is looked at: what comes from here on ends the wait below
            self._ports.witnesses.expect_one_history()
            state = self._mirror.state
            if self._ports.catching_up():
                self._ports.status.doing(CATCHING_UP)
                self._mirror.wait_beyond(state.size, IDLE_SECONDS, wakes=wakes)
                continue
            if self._ports.follower.recovering:
                self._ports.status.doing(RECOVERING)
                self._mirror.wait_beyond(state.size, IDLE_SECONDS, wakes=wakes)
                continue
            self._forget_refusals()
            if self._leaves(state):
                return
            self._ports.membership.tick()
            task = self._next(state)
            if task is not None:
                self._attempt(task)
            else:
                self._mirror.wait_beyond(state.size, IDLE_SECONDS, wakes=wakes)

    def _forget_refusals(self) -> None:
        """What a coordinator refused before it had its ledger back is tried again."""
        if self._recoveries != self._ports.follower.recoveries:
            self._recoveries = self._ports.follower.recoveries
            self._given_up.clear()
            self._attempts.clear()

    def answer(self, run: RunRecord) -> bool:
        """Answer a plan; whether there was an answer to give."""
        return self._answering.answer(run)

    def work(self, run: RunRecord, record: RoundRecord) -> None:
        """One round at this institution, docs/protocol.md#round."""
        self._rounds.work(run, record)

    # --- what is next ------------------------------------------------------------------------------------------------

    def _next(self, state: LedgerState) -> Task | None:
        """The next task, if there is one that may be done now; else everything that rest is good for."""
        held = self._holding.held(state, self._begun)
        waiting = self._answering.waiting(state)
        self._ports.status.tell(
            rounds_held=[each.as_json() for each in held.values()],
            plans_waiting=[{"run": each.run, "why": each.why, "command": each.command} for each in waiting.values()],
        )
        blocked = self._given_up | held.keys() | waiting.keys()
        task = next_task(state, self._ports.institution, blocked.__contains__, self._answering.wanted)
        self._holding.report(held)
        if task is None:
            self._rest(held)
        return task

    def _rest(self, held: dict[str, Held]) -> None:
        self._begun = None
        closed = self._ports.gatekeeper.closed()
        if closed is not None:
            self._ports.workbench.rest()  # before the status says so: `data purge` relies on it
        self._ports.status.doing(_resting(closed, held))
        self._tidying.tidy()
        if self._ports.orders.get("rotate") is not None and not self._unsent():
            self._ports.membership.rotate()

    def _unsent(self) -> bool:
        """Whether a statement was signed that the ledger does not hold: a new key would make it worthless."""
        institution, outbox = self._ports.institution, self._ports.outbox
        for run in self._mirror.state.active_runs:
            record = waiting_round(run, institution)
            if record is not None and outbox.contributed(record) is not None:
                return True
            if institution not in run.answers and outbox.answered(run) is not None:
                return True
        return False

    # --- doing it ----------------------------------------------------------------------------------------------------

    def _attempt(self, task: Task) -> None:
        """Do one task; what cannot be done is given up by name, what may go better later is tried again."""
        slot = answer_slot(task.run) if isinstance(task, AnswerPlan) else contribution_slot(task.record)
        try:
            if isinstance(task, AnswerPlan):
                self.answer(task.run)
            else:
                self._begun = slot
                self.work(task.run, task.record)
            return
        except Interrupted:
            # A state, not a failure: no attempt is counted, and the loop comes back to it.
            log.info("work interrupted", extra={"run": task.run.run, "slot": slot})
            self._note("work interrupted", run=task.run.run)
        except RoundOver:
            if not self._stopping.is_set():
                log.info("round went on without us", extra={"run": task.run.run, "slot": slot})
                self._given_up.add(slot)
        except (CoordinatorUnreachable, TooManyRequests) as err:
            log.warning("coordinator unreachable or busy", extra={"code": err.code, "error": err.message})
            self._stopping.wait(IDLE_SECONDS)
        except LLMasOSError as err:
            self._failed(slot, err)
        self._tidying.changed()

    def _failed(self, slot: str, err: LLMasOSError) -> None:
        # Bytes that broke or got lost on the way may arrive the next time; what was refused is refused.
        final = isinstance(err, RefusalError) and not isinstance(err, BlobError)
        killed, full = isinstance(err, WorkerKilled), isinstance(err, StorageFailure)
        counted = f"{slot} killed" if killed else f"{slot} storage" if full else slot
        self._attempts[counted] += 1
        times = self._attempts[counted]
        log.error(
            "task failed", extra={"slot": slot, "code": err.code, "error": err.message, "fix": err.fix, "final": final}
        )
        self._note("refused" if final else "task failed", slot=slot, code=err.code)
        if final or (not full and times >= (MAX_KILLED if killed else MAX_ATTEMPTS)):
            self._given_up.add(slot)
        else:
            growing = min(MOST_WAIT_SECONDS, IDLE_SECONDS * 1.5 ** min(times - 1, 20))
            self._stopping.wait(growing if killed or full else IDLE_SECONDS)

    def _note(self, event: str, **fields: str) -> None:
        self._ports.records.note(Event(rfc3339(self._ports.clock.now()), event, fields))

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _leaves(self, state: LedgerState) -> bool:
        """Carry out an order to leave once nothing of ours is in the way; whether the institution has left."""
        order = self._ports.orders.get("leave")
        if order is None and self._ports.institution not in state.departures:
            self._last_rounds = None
            return False
        if order is not None and order.payload.get("after_round", True) and self._round_in_progress(state):
            return False
        self._ports.status.doing("leaving")
        try:
            if not self._ports.membership.leave(self._stopping):
                return False
        except (CoordinatorUnreachable, TooManyRequests) as err:
            log.warning("leaving goes on later", extra={"code": err.code, "error": err.message})
            self._stopping.wait(IDLE_SECONDS)
            return False
        self._tidying.leave_nothing()
        self._ports.orders.clear("leave")
        log.info("institution left", extra={"institution": self._ports.institution})
        self._note("institution left")
        self._ports.status.doing("left")
        return True

    def _round_in_progress(self, state: LedgerState) -> bool:
        """Whether a round that was open when the order was first seen waits for a contribution that we can still give."""
        records = (waiting_round(run, self._ports.institution) for run in state.active_runs)
        slots = {contribution_slot(record) for record in records if record is not None} - self._given_up
        if self._last_rounds is None:
            self._last_rounds = frozenset(slots)
        return bool(slots & self._last_rounds)


def _resting(closed: Closed | None, held: dict[str, Held]) -> str:
    """The agent's activity while it does nothing."""
    if closed is not None:
        return {
            "paused": "paused",
            "outside-hours": "outside hours",
            "machine-busy": "waiting until the machine is less busy",
        }[closed.reason]
    if any(each.spent for each in held.values()):
        return "a budget is spent"
    return "waiting for witnesses" if any(each.witnesses for each in held.values()) else WAITING
