"""Commands from outside, on their way to the engine: byte checks in the caller's thread, effects on the engine's.

A statement that breaks a rule is refused to its sender with code and fix, and the refusal is recorded in the ledger, once per
institution, round and code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import sha256

from pydantic import ValidationError

from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.codecs import codec
from common.errors import (
    BadBlobReference,
    CorruptChunk,
    MalformedStatement,
    MissingBlob,
    NotAuthorised,
    RefusalError,
    RoundNotOpen,
    UnknownObject,
    UsageError,
    WrongSigner,
)
from common.ledger.rules import admit_verified, refused_at, signer_key
from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.logs import get_logger
from common.reduce import inspect_delta
from common.statements.envelope import Statement, UnverifiedStatement, parse, verify
from common.statements.kinds import (
    Answer,
    Contribution,
    Control,
    Kind,
    Member,
    PlanStatement,
    Refusal,
    Role,
)
from common.strict_json import StrictJsonError, loads
from common.tensors import model_header, model_size
from coordinator.access import named_as_delta
from coordinator.enrolment import EnrolmentDesk
from coordinator.ledger import Beside, Ledger
from coordinator.metrics import metrics_row
from coordinator.ports import Enrolled, EnrolmentOffer, Metrics
from coordinator.rounds.engine import Engine
from coordinator.rounds.phases import ABORTED, RunState

log = get_logger(__name__)

MAX_PLAN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DeskPorts:
    """What commands act on."""

    ledger: Ledger
    engine: Engine
    enrolment: EnrolmentDesk
    blobs: FolderBlobStore
    clock: Clock
    genesis: bytes


class CommandDesk:
    """The Desk port: each command blocks until its effect is durable."""

    def __init__(self, ports: DeskPorts) -> None:
        self._ports = ports
        self._ledger = ports.ledger
        self._engine = ports.engine

    # --- statements --------------------------------------------------------------------------------------------------

    def submit(self, sender: Member, envelope: bytes, metrics: Metrics | None) -> int:
        """Ledger index of an institution's answer or contribution; the same bytes again give the same index.

        Raises:
            RefusalError: what rule it breaks; the refusal is in the ledger.
        """
        unverified: UnverifiedStatement | None = None
        statement: Statement | None = None
        try:
            unverified = parse(envelope)
            statement = self._verify(sender, unverified)
            known = self._known(statement)
            if known is not None:
                return known.index
            beside = self._check(statement, metrics)
            accepted = statement
            return self._engine.call(lambda: self._take(accepted, beside)).index
        except RefusalError as err:
            code = err.code
            self._engine.call(lambda: self._record_refusal(sender, envelope, unverified, statement, code))
            raise

    def _verify(self, sender: Member, unverified: UnverifiedStatement) -> Statement:
        if unverified.kind not in {Kind.ANSWER, Kind.CONTRIBUTION}:
            raise WrongSigner(f"A {unverified.kind} is not for an institution to send.")
        institution = _institution(unverified)
        if institution != sender.name:
            raise WrongSigner(f"A statement of {institution} came on the connection of {sender.name}.")
        return verify(unverified, signer_key(self._ledger.state, unverified))

    def _known(self, statement: Statement) -> Place | None:
        return self._ledger.state.places.get(statement.digest)

    def _check(self, statement: Statement, metrics: Metrics | None) -> Beside | None:
        """All rules, cheap ones first; the engine repeats those that time can change."""
        admit_verified(self._ledger.state, statement)
        if not isinstance(statement.predicate, Contribution):
            return None
        contribution = statement.predicate
        run, _ = self._place_of(contribution)
        row = metrics_row(run, statement, metrics)
        self._inspect(run, contribution)
        return (lambda tx: tx.keep_metrics(row)) if row is not None else None

    def _inspect(self, run: RunRecord, contribution: Contribution) -> None:
        plan, manifest = run.statement.plan, run.statement.manifest
        self._expect_blobs(contribution)
        for ref in contribution.blobs.values():
            try:
                with self._ports.blobs.open(ref) as reader:
                    inspect_delta(reader, codec(plan.codec).header(manifest), max_l2=float(plan.max_delta_l2))
            except (CorruptChunk, BadBlobReference) as err:
                log.error("blob damaged on disk", extra={"root": ref.root, "error": err.message})
                self._ports.blobs.delete(ref)  # else `Begin` would say for ever that nothing of it is missing
                raise MissingBlob(f"{ref} came to harm on the coordinator's disk.", "Send it again.") from err

    def _expect_blobs(self, contribution: Contribution) -> None:
        for ref in contribution.blobs.values():
            if not self._ports.blobs.contains(ref):
                raise MissingBlob(f"The contribution names {ref}, which is not wholly here.")

    def _take(self, statement: Statement, beside: Beside | None) -> Place:
        known = self._known(statement)
        if known is not None:
            return known
        if isinstance(statement.predicate, Contribution):
            run, record = self._place_of(statement.predicate)
            if not self._engine.accepts_contributions(run):
                raise RoundNotOpen(f"Round {record.number} of {run.run} takes no more contributions.")
            self._expect_blobs(statement.predicate)  # what no statement named may have expired since it was inspected
        place = self._ledger.take(statement, beside)
        log.info(
            "statement accepted",
            extra={"kind": statement.kind.value, "institution": _institution(statement), "ledger_index": place.index},
        )
        return place

    def _place_of(self, contribution: Contribution) -> tuple[RunRecord, RoundRecord]:
        run = self._ledger.state.runs.get(contribution.run)
        current = run.current if run else None
        if run is None or current is None or current.number != contribution.round:
            raise RoundNotOpen(f"Round {contribution.round} of {contribution.run} is not open.")
        return run, current

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _record_refusal(
        self,
        sender: Member,
        envelope: bytes,
        unverified: UnverifiedStatement | None,
        statement: Statement | None,
        code: str,
    ) -> None:
        """On the engine's thread: at most one refusal per institution, round and code."""
        state = self._ledger.state
        run, number, parent = _concerned(state, unverified)
        if (sender.name, run, number, code) in state.refusals:
            return
        refusal = Refusal(
            institution=sender.name,
            run=run,
            round=number,
            refused_sha256=sha256(envelope).hexdigest(),
            code=code,
            attribution="signed-by" if statement is not None else "sent-on-connection",
        )
        self._ledger.append(refusal, parent)
        log.warning("statement refused", extra={"institution": sender.name, "code": code, "run": run, "round": number})

    # --- enrolment and operators -------------------------------------------------------------------------------------

    def enrol(self, offer: EnrolmentOffer) -> Enrolled:
        return self._engine.call(lambda: self._ports.enrolment.enrol(offer))

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...]) -> str:
        return self._engine.call(
            lambda: self._ports.enrolment.invite(
                institution, expires_hours=expires_hours, roles=roles, genesis=self._ports.genesis
            )
        )

    def start_run(self, plan_json: bytes) -> str:
        """Append the plan statement of a draft whose blobs are here.

        Raises:
            MalformedStatement: the draft is no plan statement.
            MissingBlob, UsageError: a blob is not here, or the model's size is not the manifest's.
            NotAuthorised: a blob is an institution's delta; as a model, others could read it.
            WrongTensors, NonFiniteDelta: the model's tensors are not the manifest's, or not all finite.
        """
        draft = _parse_draft(plan_json)
        self._expect_initial(draft)
        expected = model_size(draft.manifest)
        if draft.initial.model.size != expected:
            raise UsageError(
                f"The initial model has {draft.initial.model.size:,} bytes, by its manifest {expected:,}.",
                "Prepare the plan again: llmasos plan prepare.",
            )
        with self._ports.blobs.open(draft.initial.model) as reader:
            inspect_delta(reader, model_header(draft.manifest), max_l2=math.inf)  # tensors as listed, all finite
        return self._engine.call(lambda: self._start(draft))

    def _expect_initial(self, draft: PlanStatement) -> None:
        for name, ref in (("model", draft.initial.model), ("tokenizer", draft.initial.tokenizer)):
            if not self._ports.blobs.contains(ref):
                raise MissingBlob(f"The plan's initial {name}, {ref}, is not wholly here.")
            delta = named_as_delta(self._ledger.state, ref)
            if delta is not None:
                raise NotAuthorised(
                    f"The plan's initial {name}, {ref}, is what {delta.entry.contribution.institution} contributed "
                    f"to {delta.run.run}.",
                    "A delta is its contributor's; begin from a model.",
                )

    def _start(self, draft: PlanStatement) -> str:
        roster_place = self._ledger.state.roster_place
        if roster_place is None:
            raise UsageError("The consortium has no members yet.", "Invite institutions first.")
        known = self._ledger.state.runs.get(draft.run)
        if known is not None and known.statement == draft:
            return draft.run
        self._expect_initial(draft)  # what no statement names may have expired since it was looked at
        self._ledger.append(draft, roster_place)
        log.info("run started", extra={"run": draft.run, "plan": draft.plan.name})
        return draft.run

    def control_run(self, run: str, action: str, reason: str) -> int:
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
            issued_at=rfc3339(self._ports.clock.now()),
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


def _institution(statement: UnverifiedStatement | Statement) -> str:
    predicate = statement.predicate
    return predicate.institution if isinstance(predicate, Answer | Contribution) else ""


def _concerned(state: LedgerState, unverified: UnverifiedStatement | None) -> tuple[str | None, int | None, Place]:
    """Run, round and parent of a refusal, as far as what came lets them be known."""
    claimed = unverified.predicate if unverified is not None else None
    if not isinstance(claimed, Answer | Contribution) or claimed.run not in state.runs:
        return None, None, refused_at(state, None, None)
    number = claimed.round if isinstance(claimed, Contribution) else None
    if number not in {record.number for record in state.runs[claimed.run].rounds}:
        number = None
    return claimed.run, number, refused_at(state, claimed.run, number)


def _parse_draft(plan_json: bytes) -> PlanStatement:
    try:
        loads(plan_json, max_bytes=MAX_PLAN_BYTES)
        return PlanStatement.model_validate_json(plan_json)
    except (StrictJsonError, ValidationError) as err:
        raise MalformedStatement(
            f"The draft is no plan statement: {err}"[:400], "Prepare it with: llmasos plan prepare."
        ) from err
