"""The engine: one thread that owns every transition of every run.

`advance` is the protocol's round, one line a section; it is idempotent from stored state, so a process that was killed
anywhere starts it again and lands in the same place. Servicers put a command on the queue with `call` and wait; blob bytes
never pass here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from common.clock import Clock, rfc3339
from common.errors import BlobError, DeltaError, LLMasOSError, OperationError
from common.ledger.cohort import draw_cohort, round_seed
from common.ledger.rulebook.steering import left_by
from common.ledger.state import RoundRecord, RunRecord
from common.ledger.tasks import mode_of
from common.logs import get_logger
from common.statements.kinds import (
    ClearWeight,
    Control,
    PlanStatement,
    RoundClosed,
    RoundInputs,
    RoundOpened,
    RoundOutputs,
    SealedInput,
    Stage,
)
from coordinator.rounds.phases import (
    ROLLED_BACK,
    Phase,
    RunState,
    answers_suffice,
    deadline,
    next_step,
    seal_reason,
)
from coordinator.rounds.ports import (
    Aggregator,
    Chronicle,
    Departures,
    Leases,
    Measurements,
    NoDepartures,
    Step,
    Steps,
)

log = get_logger(__name__)

T = TypeVar("T")
_Command = tuple[Callable[[], Any], Future[Any]]

TICK_SECONDS = 0.5
"""How often leases and deadlines are looked at while a round is open."""
IDLE_TICK_SECONDS = 10.0
"""How often the loop goes round where no run is active: only to show that it does."""
STALLED_AGAIN_SECONDS = 60.0
"""How often a run is said to be stalled while it stays so."""


@dataclass(frozen=True, slots=True)
class EnginePorts:
    """Everything the engine uses."""

    chronicle: Chronicle
    aggregator: Aggregator
    leases: Leases
    measurements: Measurements
    steps: Steps
    clock: Clock
    departures: Departures = field(default_factory=NoDepartures)
    beat: Callable[[], None] = lambda: None
    """Called at each turn of the loop."""
    holds: Callable[[], bool] = lambda: False
    """Whether nothing may be decided now, asked at each turn: the coordinator recovers."""


class Engine:
    """Runs until `stop`. All methods but `run`, `call` and `stop` are called on the engine's own thread."""

    def __init__(self, ports: EnginePorts) -> None:
        self._ports = ports
        self._chronicle = ports.chronicle
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._stalled: dict[str, tuple[str, float]] = {}

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Advance every run as far as it goes, then wait for a command or the clock."""
        try:
            while True:
                self._ports.beat()
                self.advance_all()
                try:
                    active = bool(self._chronicle.state.active_runs) or self._ports.holds()
                    command = self._commands.get(timeout=TICK_SECONDS if active else IDLE_TICK_SECONDS)
                except queue.Empty:
                    continue
                if not self._obey(command):
                    return
        finally:
            self._ended.set()

    def _obey(self, command: _Command | None) -> bool:
        """Run it and those that wait behind it, before the rounds are looked at again; False: to stop is one of them."""
        waiting = self._commands.qsize()
        while command is not None:
            _settle(*command)
            if not waiting:
                return True
            waiting -= 1
            command = self._commands.get()
        return False

    def stop(self) -> None:
        """Ends `run` after the commands that are queued already."""
        self._commands.put(None)

    def call(self, action: Callable[[], T]) -> T:
        """Run `action` on the engine's thread and return what it returns, or raise what it raises. Any thread.

        Raises:
            OperationError: the engine has ended; nothing was done.
        """
        answer: Future[T] = Future()
        self._commands.put((action, answer))
        while not answer.done():
            try:
                return answer.result(timeout=TICK_SECONDS)
            except TimeoutError:
                if self._ended.is_set() and not answer.done():
                    raise OperationError("The coordinator is stopping.", "Ask again when it runs.") from None
        return answer.result()

    def post(self, action: Callable[[], None]) -> None:
        """Run `action` on the engine's thread, without waiting for it; a failure is logged there. Any thread."""
        self._commands.put((lambda: _logged(action), Future()))

    def advance_all(self) -> None:
        """One pass over all active runs; a run that fails by our fault is logged and tried again at the next tick."""
        if self._ports.holds():
            return
        self._let_go()
        for record in self._chronicle.state.active_runs:
            state = self.state_of(record)
            try:
                while (after := self.advance(state)) != state:
                    state = after
            except LLMasOSError as err:
                self._stalls(record.run, err)
            else:
                self._stalled.pop(record.run, None)
        self._let_go()  # a round that was closed just now may have been the last to need a delta of somebody who left

    def _stalls(self, run: str, err: LLMasOSError) -> None:
        """Say it when it begins or has another cause, then once a minute: it is tried again at each tick."""
        before, now = self._stalled.get(run), self._ports.clock.monotonic()
        if before is None or before[0] != err.code or now - before[1] >= STALLED_AGAIN_SECONDS:
            self._stalled[run] = (err.code, now)
            log.error("run stalled", extra={"run": run, "code": err.code, "error": err.message})

    def _let_go(self) -> None:
        try:
            self._ports.departures.settle()
        except LLMasOSError as err:
            log.error("departure stalled", extra={"code": err.code, "error": err.message})

    # --- the protocol ------------------------------------------------------------------------------------------------

    def advance(self, state: RunState) -> RunState:
        """One durable step of a run, docs/protocol.md#round; calling it again after a crash changes nothing."""
        match state.phase:
            case Phase.ANSWERING:
                return self.gather_answers(state)  # #answers: everyone answered, or the time to answer passed
            case Phase.COLLECTING:
                return self.collect(state)  # #collect: all are in, or the deadline passed
            case Phase.SEALED:
                return self.commit(state) if state.has_quorum else self.abandon(state, "no-quorum")  # #commit, #abandon
            case Phase.BETWEEN:
                return self.go_on(state)  # #open the next round, or end
            case Phase.PAUSED | Phase.ENDED:
                return state

    def gather_answers(self, state: RunState) -> RunState:
        """Open round 1 when enough institutions accepted; end the run when they will not."""
        record, now = state.record, self._ports.clock.now()
        asked_at = self._chronicle.appended_at(record.place)
        until = asked_at + timedelta(seconds=record.statement.plan.deadline_seconds)
        verdict = answers_suffice(record, self._chronicle.state.active_trainers, now, until)
        if verdict is None:
            return state
        return self.open(state, "train") if verdict == "open" else self.end(state, verdict)

    def go_on(self, state: RunState) -> RunState:
        """After a closed round: the next one, the final evaluation, or the end."""
        looks = state.record.statement.plan.stop.looks_at_losses
        measured = self._ports.measurements.evaluations(state.record.run) if looks else {}
        following = next_step(state.record, measured)
        if following.task is None:
            return self.end(state, following.end_reason)
        return self.open(state, following.task)

    def open(self, state: RunState, task: str) -> RunState:
        """Name cohort, base model, seed and deadline in a round-opened statement."""
        record, ledger = state.record, self._chronicle.state
        number = record.current.number + 1 if record.current else 1
        cohort = draw_cohort(ledger, record, number)
        if not cohort or ledger.roster_place is None:
            return self.end(state, "too-few-acceptances")
        until = self._ports.clock.now() + timedelta(seconds=record.statement.plan.deadline_seconds)
        opened = RoundOpened(
            run=record.run,
            round=number,
            task="train" if task == "train" else "evaluate",
            mode=mode_of(record.statement.plan, task),
            inputs=RoundInputs(model=record.model, server_state=record.server_state),
            cohort=cohort,
            roster=ledger.roster_place.digest,
            seed=round_seed(record.place.digest, number),
            stages=(Stage(name="collect", deadline=rfc3339(until)),),
        )
        self._chronicle.append(opened, record.tip)
        log.info("round opened", extra={"run": record.run, "round": number, "task": task, "cohort": len(cohort)})
        return self._after(Step.ROUND_OPENED, record.run)

    def collect(self, state: RunState) -> RunState:
        """Seal when nothing more is to come."""
        record, current = state.record, _open_round(state)
        quorum = record.statement.plan.quorum if current.opened.task == "train" else 0
        lapsed = self._ports.leases.lapsed(record.run, current.number, current.opened.cohort)
        gone = set(current.opened.cohort) - self._chronicle.state.active_names
        reason = seal_reason(current, quorum, self._ports.clock.now(), lapsed, gone)
        if reason is None:
            return state
        self._chronicle.seal(current.place.digest, reason)
        log.info(
            "round sealed",
            extra={"run": record.run, "round": current.number, "reason": reason, "missing": list(current.missing)},
        )
        return self._after(Step.ROUND_SEALED, record.run)

    def commit(self, state: RunState) -> RunState:
        """Make the new model from exactly the sealed contributions and close the round with it."""
        record, current = state.record, _open_round(state)
        inputs = sealed_inputs(current, used=True)
        outputs = _unchanged(current)
        if current.opened.task == "train":
            try:
                outputs = self._ports.aggregator.aggregate(record, current, inputs)
            except (BlobError, DeltaError) as err:
                log.error("round cannot be aggregated", extra={"run": record.run, "error": err.message})
                return self.abandon(state, err.code)
            self._ports.steps.reached(Step.MODEL_WRITTEN, record.run, current.number)
        return self._close(state, "committed", state.sealed or "sealed", inputs, outputs)

    def abandon(self, state: RunState, reason: str) -> RunState:
        """Close the round with the model unchanged; its number is consumed."""
        current = _open_round(state)
        return self._close(state, "abandoned", reason, sealed_inputs(current, used=False), _unchanged(current))

    def roll_back(self, state: RunState, number: int, reason: str) -> None:
        """Abandon the open round, and go on from what that round left; 0: from the run's beginning."""
        if (
            state.record.open_round is not None
        ):  # nothing expires in between: the round may have kept what is gone back to
            current = state.record.open_round
            self._append_closed(
                state, "abandoned", ROLLED_BACK, sealed_inputs(current, used=False), _unchanged(current)
            )
        record = self._chronicle.state.runs[state.record.run]
        control = Control(
            action="roll-back",
            issued_at=rfc3339(self._ports.clock.now()),
            run=record.run,
            round=number or None,
            reason=reason,
            model=left_by(record, number).model,
        )
        self._chronicle.append(control, record.tip)
        log.info("run rolled back", extra={"run": record.run, "to_round": number, "reason": reason})
        self._ports.aggregator.expire(self._chronicle.state)

    def end(self, state: RunState, reason: str) -> RunState:
        """The run's last statement."""
        record = state.record
        control = Control(
            action="run-ended",
            issued_at=rfc3339(self._ports.clock.now()),
            run=record.run,
            reason=reason,
            model=record.model,
        )
        self._chronicle.append(control, record.tip)
        log.info("run ended", extra={"run": record.run, "reason": reason})
        return self._after(Step.RUN_ENDED, record.run)

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _close(
        self, state: RunState, outcome: str, reason: str, inputs: tuple[SealedInput, ...], outputs: RoundOutputs
    ) -> RunState:
        self._append_closed(state, outcome, reason, inputs, outputs)
        self._ports.aggregator.expire(self._chronicle.state)
        return self._after(Step.ROUND_CLOSED, state.record.run)

    def _append_closed(
        self, state: RunState, outcome: str, reason: str, inputs: tuple[SealedInput, ...], outputs: RoundOutputs
    ) -> None:
        record, current = state.record, _open_round(state)
        closed = RoundClosed(
            run=record.run,
            round=current.number,
            outcome="committed" if outcome == "committed" else "abandoned",
            reason=reason,
            rule=self._rule(state) if outcome == "committed" else record.statement.plan.rule.type,
            inputs=inputs,
            outputs=outputs,
        )
        self._chronicle.append(closed, current.place)
        log.info(
            "round closed",
            extra={
                "run": record.run,
                "round": current.number,
                "outcome": outcome,
                "reason": reason,
                "inputs": len(inputs),
            },
        )

    def _rule(self, state: RunState) -> str:
        record, trained = state.record, _open_round(state).opened.task == "train"
        return self._ports.aggregator.rule(record) if trained else record.statement.plan.rule.type

    def _after(self, step: Step, run: str) -> RunState:
        record = self._chronicle.state.runs[run]
        self._ports.steps.reached(step, run, record.current.number if record.current else 0)
        return self.state_of(record)

    def state_of(self, record: RunRecord) -> RunState:
        """The run's state as stored."""
        current = record.open_round
        return RunState(record, self._chronicle.seal_of(current.place.digest) if current else None)

    def check_plan(self, plan: PlanStatement) -> None:
        """Whether rounds of that plan can be aggregated here; any thread.

        Raises:
            InvalidConfiguration, BlobTooLarge: they cannot.
        """
        self._ports.aggregator.check_plan(plan)

    def accepts_contributions(self, record: RunRecord) -> bool:
        """Whether the run's open round takes contributions now."""
        state = self.state_of(record)
        if state.phase is not Phase.COLLECTING or _open_round(state).is_full:
            return False
        return self._ports.clock.now() < deadline(_open_round(state))


def sealed_inputs(current: RoundRecord, *, used: bool) -> tuple[SealedInput, ...]:
    """Every contribution of a round, ascending by institution."""
    entries = []
    for name in sorted(current.contributions):
        entry = current.contributions[name]
        weight = entry.contribution.weight
        entries.append(
            SealedInput(
                institution=name,
                contribution=entry.place.digest,
                num_tokens=weight.num_tokens if isinstance(weight, ClearWeight) else 0,
                status="used" if used else "unused",
            )
        )
    return tuple(entries)


def _unchanged(current: RoundRecord) -> RoundOutputs:
    """What a round leaves that changes nothing: what it started from."""
    return RoundOutputs(model=current.opened.inputs.model, server_state=current.opened.inputs.server_state)


def _open_round(state: RunState) -> RoundRecord:
    current = state.record.open_round
    if current is None:
        raise RuntimeError(f"run {state.record.run} has no open round in phase {state.phase}")
    return current


def _logged(action: Callable[[], None]) -> None:
    try:
        action()
    except LLMasOSError as err:
        log.error("work for the engine failed", extra={"code": err.code, "error": err.message})


def _settle(action: Callable[[], Any], answer: Future[Any]) -> None:
    """Run one command and hand over its result; whatever it raises belongs to the caller who waits."""
    try:
        answer.set_result(action())
    except BaseException as err:  # noqa: BLE001  handed to the waiting caller, nothing is swallowed
        answer.set_exception(err)
