"""Runs on an operator's word: started from a draft whose blobs are here, paused, resumed, aborted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ValidationError

from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import MalformedStatement, MissingBlob, NotAuthorised, UnknownObject, UsageError
from common.ledger.state import LedgerState, RunRecord
from common.logs import get_logger
from common.reduce import inspect_delta
from common.statements.kinds import Control, PlanStatement
from common.strict_json import StrictJsonError, loads
from common.tensors import model_header, model_size
from coordinator.access import named_as_delta
from coordinator.changes import Change, request_digest
from coordinator.ledger import Ledger
from coordinator.proposals import Proposals
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import ABORTED, RunState

log = get_logger(__name__)

MAX_PLAN_BYTES = 1024 * 1024


class InitialBlobs:
    """What a plan starts from, in the blob store (coordinator.proposals.PlanBlobs)."""

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
                    f"to {delta.run.run}.",
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
        """
        draft = _parse_draft(plan_json)
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

    def control(self, run: str, action: str, reason: str) -> int:
        """Pause, resume or abort; the statement's ledger index.

        Raises:
            UnknownObject: no such run, or it has ended.
            UsageError: another action.
        """
        if action not in {"pause", "resume", "abort"}:
            raise UsageError(f"A run cannot be told {action!r}.", "Use pause, resume or abort.")
        return self._engine.call(lambda: self._control(run, action, reason))

    def _control(self, prefix: str, action: str, reason: str) -> int:
        record = find_run(self._ledger.state, prefix)
        if record.ended is not None:
            raise UnknownObject(f"Run {record.run} has ended: {record.ended.reason}.")
        if action == "abort":
            state = self._engine.state_of(record)
            if record.open_round is not None:
                state = self._engine.abandon(state, ABORTED)
            self._engine.end(RunState(state.record), ABORTED)
            return self._ledger.state.size - 1
        control = Control(
            action="pause" if action == "pause" else "resume",
            issued_at=rfc3339(self._clock.now()),
            run=record.run,
            reason=reason or "operator",
        )
        return self._ledger.append(control, record.tip).index


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


def _parse_draft(plan_json: bytes) -> PlanStatement:
    try:
        loads(plan_json, max_bytes=MAX_PLAN_BYTES)
        return PlanStatement.model_validate_json(plan_json)
    except (StrictJsonError, ValidationError) as err:
        raise MalformedStatement(
            f"The draft is no plan statement: {err}"[:400], "Prepare it with: llmasos plan prepare."
        ) from err
