"""Runs on an operator's word: started from a draft whose blobs are here, paused, resumed, extended, rolled back, aborted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import ValidationError

from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import (
    LedgerConflict,
    MalformedStatement,
    MissingBlob,
    NotAuthorised,
    UnknownObject,
    UnsupportedProtocol,
    UsageError,
)
from common.ledger.rulebook.steering import left_by
from common.ledger.state import LedgerState, Place, RunRecord
from common.logs import get_logger
from common.reduce import inspect_delta
from common.statements.kinds import Control, PlanStatement
from common.statements.versions import SPOKEN
from common.strict_json import StrictJsonError, loads
from common.tensors import model_header, model_size
from coordinator.access import named_as_delta
from coordinator.ledger import Ledger
from coordinator.members.changes import Change, request_digest
from coordinator.members.proposals import Proposals
from coordinator.ports import NOTHING, Steering
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import ABORTED, Phase, RunState, deadline

log = get_logger(__name__)

MAX_PLAN_BYTES = 1024 * 1024


class InitialBlobs:
    """What a plan starts from, in the blob store (coordinator.members.proposals.PlanBlobs)."""

    def __init__(self, ledger: Ledger, blobs: FolderBlobStore) -> None:
        self._ledger, self._blobs = ledger, blobs

    def expect_initial(self, plan: PlanStatement) -> None:
        """
        Raises:
            MissingBlob: a blob is not here.
            NotAuthorised: a blob is an institution's delta; as a model, others could read it.
        """
        for name, ref in (("model", plan.initial.model), ("tokenizer", plan.initial.tokenizer)):
            if not self._blobs.contains(ref):
                raise MissingBlob(f"The plan's initial {name}, {ref}, is not wholly here.")
            delta = named_as_delta(self._ledger.state, ref)
            if delta is not None:
                raise NotAuthorised(
                    f"The plan's initial {name}, {ref}, is what {delta.entry.contribution.institution} contributed "
                    f"to {delta.run}.",
                    "A delta is its contributor's; begin from a model.",
                )


@dataclass(frozen=True, slots=True)
class RunPorts:
    """What runs are started and controlled by."""

    ledger: Ledger
    engine: Engine
    blobs: FolderBlobStore
    proposals: Proposals
    clock: Clock


class RunDesk:
    """Checks in the caller's thread, effects on the engine's."""

    def __init__(self, ports: RunPorts) -> None:
        self._ledger, self._engine, self._clock = ports.ledger, ports.engine, ports.clock
        self._blobs, self._proposals = ports.blobs, ports.proposals
        self._initial = InitialBlobs(ports.ledger, ports.blobs)

    def start(self, plan_json: bytes) -> str:
        """Append the plan statement of a draft whose blobs are here.

        Raises:
            ApprovalPending: institutions have to approve the plan first; the same again says how far it is.
            MalformedStatement: the draft is no plan statement.
            MissingBlob, UsageError: a blob is not here, or the model's size is not the manifest's.
            NotAuthorised: a blob is an institution's delta; as a model, others could read it.
            WrongTensors, NonFiniteDelta: the model's tensors are not the manifest's, or not all finite.
            InvalidConfiguration, BlobTooLarge: this coordinator cannot aggregate rounds of that plan.
            UnsupportedProtocol: the plan offers protocol versions that this coordinator does not speak.
        """
        draft = _parse_draft(plan_json)
        _expect_spoken(draft)
        self._engine.check_plan(draft)
        self._initial.expect_initial(draft)
        expected = model_size(draft.manifest)
        if draft.initial.model.size != expected:
            raise UsageError(
                f"The initial model has {draft.initial.model.size:,} bytes, by its manifest {expected:,}.",
                "Prepare the plan again: llmasos plan prepare.",
            )
        with self._blobs.open(draft.initial.model) as reader:
            inspect_delta(reader, model_header(draft.manifest), max_l2=math.inf)  # tensors as listed, all finite
        return self._engine.call(lambda: self._start(draft))

    def _start(self, draft: PlanStatement) -> str:
        if self._ledger.state.roster_place is None:
            raise UsageError("The consortium has no members yet.", "Invite institutions first.")
        known = self._ledger.state.runs.get(draft.run)
        if known is not None and known.statement == draft:
            return draft.run
        self._initial.expect_initial(draft)  # what no statement names may have expired since it was looked at
        request = request_digest(draft.model_dump_json())
        self._proposals.decide(Change("run", draft.run, request, draft))
        log.info("run started", extra={"run": draft.run, "plan": draft.plan.name})
        return draft.run

    def control(self, run: str, action: str, reason: str, steering: Steering = NOTHING) -> int:
        """Pause, resume, extend, roll back or abort; the statement's ledger index.

        Raises:
            UnknownObject: no such run, or it has ended.
            UsageError: another action, or one that changes nothing.
            MissingBlob: what the run would go back to is not here any more.
        """
        actions: Mapping[str, Callable[[RunRecord, str, Steering], int]] = {
            "pause": lambda record, reason, _: self._append("pause", record, reason),
            "resume": lambda record, reason, _: self._append("resume", record, reason),
            "extend": self._extend,
            "rollback": self._roll_back,
            "abort": self._abort,
        }
        if action not in actions:
            raise UsageError(f"A run cannot be told {action!r}.", f"Use one of {', '.join(actions)}.")
        return self._engine.call(lambda: actions[action](self._active(run), reason or "operator", steering))

    def _active(self, prefix: str) -> RunRecord:
        record = find_run(self._ledger.state, prefix)
        if record.ended is not None:
            raise UnknownObject(f"Run {record.run} has ended: {record.ended.reason}.")
        return record

    def _append(self, action: Literal["pause", "resume"], record: RunRecord, reason: str) -> int:
        control = Control(action=action, issued_at=rfc3339(self._clock.now()), run=record.run, reason=reason)
        return self._ledger.append(control, record.tip).index

    def _abort(self, record: RunRecord, reason: str, _: Steering) -> int:
        state = self._engine.state_of(record)
        if record.open_round is not None:
            state = self._engine.abandon(state, ABORTED)
        self._engine.end(RunState(state.record), ABORTED)
        return self._ledger.state.size - 1

    def _extend(self, record: RunRecord, reason: str, steering: Steering) -> int:
        if steering.deadline_seconds is not None:
            return self._later(record, reason, steering.deadline_seconds)
        control = Control(
            action="extend",
            issued_at=rfc3339(self._clock.now()),
            run=record.run,
            reason=reason,
            rounds=steering.rounds,
        )
        return self._say(control, record.tip)

    def _later(self, record: RunRecord, reason: str, seconds: int) -> int:
        """The open round's deadline, so many seconds from now."""
        current, now = record.open_round, self._clock.now()
        if current is None or self._engine.state_of(record).phase is not Phase.COLLECTING:
            raise UsageError(f"Run {record.run} has no round that takes contributions now.", "See: run show.")
        until = now + timedelta(seconds=seconds)
        if until <= deadline(current):
            raise UsageError(
                f"Round {current.number} of {record.run} has until {current.deadline}, {seconds} s from now is no later.",
                "Name more seconds, or leave it as it is.",
            )
        control = Control(
            action="extend",
            issued_at=rfc3339(now),
            run=record.run,
            round=current.number,
            reason=reason,
            deadline=rfc3339(until),
        )
        return self._say(control, current.place)

    def _say(self, control: Control, parent: Place) -> int:
        """Append it; what the ledger does not take is the operator's mistake."""
        try:
            return self._ledger.append(control, parent).index
        except (LedgerConflict, MalformedStatement) as err:
            raise UsageError(err.message, "Nothing was changed.") from err

    def _roll_back(self, record: RunRecord, reason: str, steering: Steering) -> int:
        number = steering.to_round or 0
        try:
            then = left_by(record, number)
        except LedgerConflict as err:
            standing = ", ".join(str(each.number) for each in record.standing if each.closed is not None)
            raise UsageError(err.message, f"Rounds that were closed and count: {standing or 'none'}.") from err
        for name, ref in (("model", then.model), ("server_state", then.server_state)):
            if ref is not None and not self._blobs.contains(ref):
                raise MissingBlob(
                    f"The {name} that round {number} of {record.run} left, {ref}, is not kept any more.",
                    "The plan's retention says how many rounds are kept; go back to a newer one.",
                )
        self._engine.roll_back(self._engine.state_of(record), number, reason)
        return self._ledger.state.size - 1


def find_run(state: LedgerState, prefix: str) -> RunRecord:
    """The one run whose id begins so.

    Raises:
        UnknownObject: none or several do.
    """
    if prefix in state.runs:
        return state.runs[prefix]
    found = [run for name, run in state.runs.items() if name.startswith(prefix)] if prefix else []
    if len(found) != 1:
        names = ", ".join(sorted(state.runs)) or "none yet"
        raise UnknownObject(f"{len(found)} runs begin with {prefix!r}; runs here: {names}.")
    return found[0]


def _expect_spoken(draft: PlanStatement) -> None:
    """Whatever institutions choose from the offer, this coordinator must conduct."""
    offered = draft.protocol_versions
    if offered.least not in SPOKEN or offered.most not in SPOKEN:
        raise UnsupportedProtocol(
            f"The plan offers protocol versions {offered}, this coordinator speaks {SPOKEN}.",
            "Prepare the plan with the coordinator's release, or upgrade the coordinator.",
        )


def _parse_draft(plan_json: bytes) -> PlanStatement:
    try:
        loads(plan_json, max_bytes=MAX_PLAN_BYTES)
        return PlanStatement.model_validate_json(plan_json)
    except (StrictJsonError, ValidationError) as err:
        raise MalformedStatement(
            f"The draft is no plan statement: {err}"[:400], "Prepare it with: llmasos plan prepare."
        ) from err
