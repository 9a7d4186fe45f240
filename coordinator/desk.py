"""Commands from outside, on their way to the engine: byte checks in the caller's thread, effects on the engine's.

A statement that breaks a rule is refused to its sender with code and fix, and the refusal is recorded in the ledger, once per
institution, round and code.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from common.blobs.store import FolderBlobStore
from common.clock import Clock
from common.errors import (
    BadSignature,
    CoordinatorRecovering,
    MalformedStatement,
    MissingBlob,
    RefusalError,
    RoundNotOpen,
    WrongSigner,
)
from common.ledger.heads import expect_seen, log_key
from common.ledger.notes import parse_note, read_checkpoint
from common.ledger.rules import admit_verified, signer_key
from common.ledger.staleness import is_awaited
from common.ledger.state import Place, RoundRecord, RunRecord
from common.ledger.tasks import offered_blobs
from common.logs import get_logger
from common.statements.envelope import Statement, UnverifiedStatement, parse, verify
from common.statements.kinds import (
    Answer,
    Attestation,
    Contribution,
    Control,
    Member,
    Role,
    signing_institution,
)
from common.wire.messages import Approved, Proposal
from coordinator.inspections import Inspections
from coordinator.ledger import Beside, Ledger
from coordinator.members.enrolment import EnrolmentDesk
from coordinator.members.membership import MembershipDesk, expect_another_operator
from coordinator.members.proposals import Proposals
from coordinator.ports import NOTHING, Enrolled, EnrolmentOffer, Metrics, RenewalOffer, Steering
from coordinator.refusals import RefusalBook, Refused
from coordinator.rounds.engine import Engine
from coordinator.run_desk import RunDesk, RunPorts, find_run
from coordinator.watching.metrics import StoredMeasurements, metrics_row

log = get_logger(__name__)

MAX_PLAN_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DeskPorts:
    """What commands act on."""

    ledger: Ledger
    engine: Engine
    enrolment: EnrolmentDesk
    membership: MembershipDesk
    blobs: FolderBlobStore
    inspections: Inspections
    clock: Clock
    genesis: bytes
    measurements: StoredMeasurements
    proposals: Proposals


class CommandDesk:
    """The Desk port: each command blocks until its effect is durable."""

    def __init__(self, ports: DeskPorts) -> None:
        self._ports = ports
        self._ledger = ports.ledger
        self._engine = ports.engine
        self._runs = RunDesk(RunPorts(ports.ledger, ports.engine, ports.blobs, ports.proposals, ports.clock))
        self._refusals = RefusalBook(ports.ledger, ports.engine)

    # --- statements --------------------------------------------------------------------------------------------------

    def submit(self, sender: Member, envelope: bytes, metrics: Metrics | None) -> int:
        """Ledger index of an institution's answer, contribution, attestation or leave; the same bytes give the same index.

        Raises:
            RefusalError: what rule it breaks; the refusal is in the ledger.
        """
        unverified: UnverifiedStatement | None = None
        statement: Statement | None = None
        try:
            unverified = parse(envelope)
            _expect_own(sender, unverified)
            self._expect_not_ahead(unverified)
            known = self._known(unverified)
            if known is not None and self._ledger.envelope(known) == envelope:
                return known.index  # before the signature: its key may have been rotated since
            statement = verify(unverified, signer_key(self._ledger.state, unverified))
            if known is not None:
                return known.index
            beside = self._check(statement, metrics)
            accepted = statement
            return self._engine.call(lambda: self._take(accepted, beside)).index
        except RefusalError as err:
            code = err.code
            self._engine.call(lambda: self._record_refusal(sender, envelope, unverified, statement, code))
            raise

    def _expect_not_ahead(self, unverified: UnverifiedStatement) -> None:
        """
        Raises:
            CoordinatorRecovering: what it names as seen, and this log signed, is more than this ledger: nothing is refused in
                ignorance, and the sender's follower presents it.
        """
        said = unverified.predicate
        if not isinstance(said, Contribution) or said.checkpoint is None:
            return
        try:
            head = read_checkpoint(parse_note(said.checkpoint.encode()), log_key(self._ledger.state.genesis))
        except (MalformedStatement, BadSignature):
            return  # judged with the rest of it
        state = self._ledger.state
        given_up = any(each.gave_up(head) for each in state.lineages)
        if head.size > state.size and not given_up:
            raise CoordinatorRecovering(
                f"{said.institution} saw {head.size:,} entries, this ledger has {self._ledger.state.size:,}."
            )

    def _known(self, statement: UnverifiedStatement | Statement) -> Place | None:
        return self._ledger.state.places.get(statement.digest)

    def _check(self, statement: Statement, metrics: Metrics | None) -> Beside | None:
        """All rules, cheap ones first; the engine repeats those that time can change."""
        if isinstance(statement.predicate, Contribution):
            self._await_opening(statement.predicate)
        admit_verified(self._ledger.state, statement)
        if not isinstance(statement.predicate, Contribution):
            return None
        contribution = statement.predicate
        run, current = self._place_of(contribution)
        if contribution.checkpoint is not None:
            tree, key = self._ledger.tree(), log_key(self._ledger.state.genesis)
            expect_seen(contribution.checkpoint, key, tree, current.place.index)
        row = metrics_row(run, statement, metrics)
        self._inspect(run, contribution)
        return (lambda tx: tx.keep_metrics(row)) if row is not None else None

    def _await_opening(self, contribution: Contribution) -> None:
        """A late delta may come between two rounds: the engine has opened the next one when it answers."""
        run = self._ledger.state.runs.get(contribution.run)
        if run is not None and run.open_round is None and is_awaited(run, contribution.round):
            self._engine.call(lambda: None)

    def _inspect(self, run: RunRecord, contribution: Contribution) -> None:
        self._expect_blobs(contribution)
        for name, ref in offered_blobs(contribution).items():
            self._ports.inspections.inspect(run, ref, name)

    def _expect_blobs(self, contribution: Contribution) -> None:
        """That the contributor itself sent them: everybody reads digests in the ledger, and naming is not having."""
        for ref in contribution.blobs.values():
            if not self._ports.blobs.contains(ref):
                raise MissingBlob(f"The contribution names {ref}, which is not wholly here.")
            if not self._ports.blobs.has_sent(contribution.institution, ref):
                raise MissingBlob(
                    f"The contribution names {ref}, whose bytes {contribution.institution} has not sent itself."
                )

    def _take(self, statement: Statement, beside: Beside | None) -> Place:
        known = self._known(statement)
        if known is not None:
            return known
        if isinstance(statement.predicate, Contribution):
            run, record = self._place_of(statement.predicate)
            if not self._engine.accepts_contributions(run):
                why = self._ledger.seal_of(record.place.digest) or "deadline-passed"
                raise RoundNotOpen(f"Round {record.number} of {run.run} takes no more contributions: {why}.")
            self._expect_blobs(statement.predicate)  # what no statement named may have expired since it was inspected
        if isinstance(statement.predicate, Control):
            expect_another_operator(self._ledger.state, _institution(statement))
        place = self._ledger.take(statement, beside)
        log.info(
            "statement accepted",
            extra={"kind": statement.kind.value, "institution": _institution(statement), "ledger_index": place.index},
        )
        if isinstance(statement.predicate, Attestation) and statement.predicate.result == "different":
            _disagrees(statement.predicate, place)
        return place

    def _place_of(self, contribution: Contribution) -> tuple[RunRecord, RoundRecord]:
        run = self._ledger.state.runs.get(contribution.run)
        current = run.current if run else None
        if run is None or current is None or not is_awaited(run, contribution.round):
            raise RoundNotOpen(f"Round {contribution.round} of {contribution.run} is not open.")
        return run, run.rounds[contribution.round - 1]

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _record_refusal(
        self,
        sender: Member,
        envelope: bytes,
        unverified: UnverifiedStatement | None,
        statement: Statement | None,
        code: str,
    ) -> None:
        """On the engine's thread: at most one refusal per institution, run, round and code."""
        run, number = _concerned(unverified)
        self._refusals.record(
            Refused(
                institution=sender.name,
                code=code,
                what="statement",
                refused_sha256=sha256(envelope).hexdigest(),
                attribution="signed-by" if statement is not None else "sent-on-connection",
                run=run,
                round=number,
            )
        )

    # --- enrolment and operators -------------------------------------------------------------------------------------

    def enrol(self, offer: EnrolmentOffer) -> Enrolled:
        return self._engine.call(lambda: self._ports.enrolment.enrol(offer))

    def renew(self, offer: RenewalOffer) -> Enrolled:
        return self._engine.call(lambda: self._ports.membership.renew(offer))

    def revoke(self, institution: str, reason: str) -> int:
        return self._engine.call(lambda: self._ports.membership.revoke(institution, reason))

    def invite(self, institution: str, *, expires_hours: int, roles: tuple[Role, ...]) -> str:
        return self._engine.call(
            lambda: self._ports.enrolment.invite(
                institution, expires_hours=expires_hours, roles=roles, genesis=self._ports.genesis
            )
        )

    def delete_metrics(self, run: str, institution: str) -> int:
        measurements = self._ports.measurements
        return self._engine.call(lambda: measurements.delete(find_run(self._ledger.state, run), institution))

    # --- approvals -----------------------------------------------------------------------------------------------------

    @property
    def open_proposals(self) -> int:
        return self._ports.proposals.open_proposals

    def proposals(self) -> tuple[Proposal, ...]:
        return self._engine.call(self._ports.proposals.listed)

    def approve(self, sender: Member, payload_sha256: str, signature: bytes) -> Approved:
        return self._engine.call(lambda: self._ports.proposals.approve(sender, payload_sha256, signature))

    def withdraw_proposal(self, payload_sha256: str) -> None:
        self._engine.call(lambda: self._ports.proposals.withdraw(payload_sha256))

    # --- runs ----------------------------------------------------------------------------------------------------------

    def start_run(self, plan_json: bytes) -> str:
        return self._runs.start(plan_json)

    def control_run(self, run: str, action: str, reason: str, steering: Steering = NOTHING) -> int:
        return self._runs.control(run, action, reason, steering)


def _institution(statement: UnverifiedStatement | Statement) -> str:
    return signing_institution(statement.predicate) or ""


def _expect_own(sender: Member, unverified: UnverifiedStatement) -> None:
    """
    Raises:
        WrongSigner: no statement for an institution to send, or another one's.
    """
    institution = _institution(unverified)
    if not institution:
        raise WrongSigner(f"A {unverified.kind} is not for an institution to send.")
    if institution != sender.name:
        raise WrongSigner(f"A statement of {institution} came on the connection of {sender.name}.")


def _disagrees(said: Attestation, place: Place) -> None:
    """Either the auditor's arithmetic or ours is wrong, and every member will read it."""
    log.error(
        "auditor found another model",
        extra={
            "institution": said.institution,
            "run": said.run,
            "round": said.round,
            "root": said.model.root,
            "ledger_index": place.index,
        },
    )


def _concerned(unverified: UnverifiedStatement | None) -> tuple[str | None, int | None]:
    """Run and round that what came speaks of, as far as it lets them be known."""
    claimed = unverified.predicate if unverified is not None else None
    if isinstance(claimed, Contribution | Attestation):
        return claimed.run, claimed.round
    return (claimed.run if isinstance(claimed, Answer) else None), None
