"""Drafts that institutions must approve before they enter the ledger (docs/protocol.md#approvals).

    decide(change) ── none needed ──────────────────────────▶ appended
         └── k needed: drafted, and ApprovalPending ── approve, k times ──▶ appended, with what belongs beside it

Durable in the state database; a draft and its approvals outlive the process. When the roster that a draft follows is no longer
the newest, the same change is drafted again over the newer one, and its approvals are void: they were for another statement.
Whoever asked is told how far it is, asks the same again, and gets the answer once it is appended.

Runs on the engine's thread, except `open_proposals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.clock import Clock, rfc3339
from common.errors import (
    LLMasOSError,
    MalformedStatement,
    RoleMissing,
    StorageFailure,
    TooManyRequests,
    UnknownObject,
)
from common.identity.keys import key_id
from common.ledger.rulebook.approvals import approvals_needed, approvers
from common.ledger.state import Place
from common.logs import get_logger
from common.statements.approvals import APPROVAL_BYTES, verify_approval, with_approvals
from common.statements.envelope import APPROVED_KINDS, MAX_ENVELOPE_BYTES, Approval, parse, verify
from common.statements.form import open_envelope
from common.statements.kinds import Member, PlanStatement
from common.wire.messages import Approved, Proposal
from coordinator.ledger import Ledger
from coordinator.members.changes import Change, Purpose, change_again, change_of
from coordinator.members.drafts import ID_DIGITS, Drafts, fields, row_of
from coordinator.store.database import Database
from coordinator.store.proposals import ApprovalRow, ProposalRow

log = get_logger(__name__)

MOST_PROPOSALS = 64
MAX_LISTED_BYTES = 3 * 1024 * 1024
"""Payloads in one list: what a message holds. Later drafts show once earlier ones are approved or withdrawn."""


class PlanBlobs(Protocol):
    """What a plan needs beside its statement."""

    def expect_initial(self, plan: PlanStatement) -> None:
        """
        Raises:
            LLMasOSError: the blobs that the plan starts from are not here, or not for this.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProposalPorts:
    """What drafts act on."""

    ledger: Ledger
    database: Database
    plans: PlanBlobs
    clock: Clock


class Proposals:
    """Appends what needs no approval, and keeps what does until it has it."""

    def __init__(self, ports: ProposalPorts) -> None:
        self._ports = ports
        self._ledger, self._database = ports.ledger, ports.database
        self._drafts = Drafts(ports.ledger, ports.database)
        self._seen: tuple[str, int] | None = None
        self._listed: tuple[tuple[str, int], tuple[Proposal, ...]] | None = None
        self._open = ports.database.count_proposals()

    @property
    def open_proposals(self) -> int:
        """How many drafts await approvals; any thread."""
        return self._open

    # --- asking ------------------------------------------------------------------------------------------------------

    def decide(self, change: Change) -> Place:
        """Append the change's statement, if it needs no approval; the same change again goes on with its draft.

        Raises:
            ApprovalPending: it is drafted; says how many institutions have approved.
            TooManyRequests: too many drafts are open.
            RefusalError: the statement breaks a rule.
        """
        resumed = self.resume(change.purpose, change.subject, change.request)
        if resumed is not None:
            return resumed
        state = self._ledger.state
        predicate, parent = change.predicate(state), state.roster_place or state.genesis_place
        statement = self._ledger.draft(predicate, parent)
        needed = approvals_needed(state, statement.kind, predicate)
        if needed:
            self._draft(change, statement.envelope, statement.digest, needed)
            raise self._drafts.pending(statement.digest)
        place = self._ledger.take(statement, lambda tx: change.write(tx, state.size))
        self.recount()
        self.refresh()
        return place

    def resume(self, purpose: Purpose, subject: str, request: str) -> Place | None:
        """Go on with the draft that this very request made: before a certificate is issued for it a second time.

        Returns:
            Where its statement stands, if it could be appended just now; None where no such draft is open.

        Raises:
            ApprovalPending: it waits.
        """
        self.refresh()
        row = self._database.proposal_for(purpose, subject)
        if row is None or row.request != request:
            return None
        place = self._complete(row)
        if place is None:
            raise self._drafts.pending(row.payload_sha256)
        self.refresh()
        return place

    # --- approving ---------------------------------------------------------------------------------------------------

    def listed(self) -> tuple[Proposal, ...]:
        """Open drafts, oldest first, as many as one message holds."""
        self.refresh()
        if self._listed is None or self._listed[0] != self._drafts.mark:
            self._listed = self._drafts.mark, self._drafts.listed(MAX_LISTED_BYTES)
        return self._listed[1]

    def approve(self, sender: Member, payload_sha256: str, signature: bytes) -> Approved:
        """Keep an institution's signature under a draft; with the last one that is needed, append its statement.

        Raises:
            RoleMissing: the sender is no institution that may approve.
            UnknownObject: no such draft is open, nor did one become a statement.
            BadSignature: the sender's key did not sign this payload.
        """
        self.refresh()
        key = approvers(self._ledger.state).get(sender.name)
        if key is None:
            raise RoleMissing(
                f"{sender.name} has the roles {', '.join(sender.roles) or 'none'}; only an active institution approves.",
                "Approve from the home folder of an institution: llmasos-participant proposal approve.",
            )
        row = self._database.proposal(payload_sha256)
        if row is None:
            return self._approved_before(payload_sha256)
        approval = Approval(key_id(key), signature)
        verify_approval(open_envelope(row.envelope).payload, approval, sender.name, key)
        if self._drafts.given(row).get(sender.name) != approval:
            now = rfc3339(self._ports.clock.now())
            with self._database.transaction() as tx:
                tx.keep_approval(ApprovalRow(payload_sha256, sender.name, approval.keyid, signature, now))
            self._listed = None
            log.info("proposal approved", extra={**fields(row), "institution": sender.name})
        needed, given = self._drafts.needed(row), len(self._drafts.given(row))
        place = self._complete(row)
        self.refresh()
        return Approved(place.index if place else None, needed, given)

    def _approved_before(self, payload_sha256: str) -> Approved:
        """Asked again after the last approval: the reply was lost, or another institution's was the last."""
        place = self._ledger.state.places.get(payload_sha256)
        if place is None or place.kind not in APPROVED_KINDS:
            raise UnknownObject(
                f"No proposal {payload_sha256[:ID_DIGITS]}… is open: it was withdrawn, or drafted again over a newer roster.",
                "See what is open: llmasos-participant proposal list.",
            )
        given = len(parse(self._ledger.envelope(place)).approvals)
        return Approved(place.index, given, given)

    def withdraw(self, payload_sha256: str) -> None:
        """
        Raises:
            UnknownObject: no such draft is open.
        """
        row = self._database.proposal(payload_sha256)
        if row is None:
            raise UnknownObject(
                f"No proposal {payload_sha256[:ID_DIGITS]}… is open.",
                "See what is open: llmasos-coordinator proposal list.",
            )
        self._drop(row)
        log.info("proposal withdrawn", extra=fields(row))

    # --- while the ledger goes on ------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Draft again what follows a roster that is no longer the newest; calling it again changes nothing."""
        while (mark := self._drafts.mark) != self._seen:
            self._seen = mark
            for row in self._database.proposals():
                if self._drafts.mark == mark:
                    self._refresh(row)

    def _refresh(self, row: ProposalRow) -> None:
        state = self._ledger.state
        parent = state.roster_place or state.genesis_place
        if parse(row.envelope).parent.digest == parent.digest:
            self._complete(row)  # fewer may be needed since somebody left
            return
        change = change_again(change_of(row), state)
        if change is None:
            self._drop(row)
            log.info("proposal dropped", extra=fields(row))
            return
        statement = self._ledger.draft(change.predicate(state), parent)
        again = row_of(change, statement.envelope, statement.digest, row.proposed_at)
        with self._database.transaction() as tx:
            tx.propose(again)
        self.recount()
        log.info("proposal drafted again", extra=fields(again))
        self._complete(again)

    def awaited_blobs(self) -> set[str]:
        """Roots of the blobs that drafted plans start from: no statement names them yet, and they must stay."""
        return self._drafts.awaited_blobs()

    def recount(self) -> None:
        """After a transaction that made or dropped a draft."""
        self._listed = None
        self._open = self._database.count_proposals()

    def _draft(self, change: Change, envelope: bytes, digest: str, needed: int) -> None:
        known = self._database.proposal_for(change.purpose, change.subject)
        if known is None and self._open >= MOST_PROPOSALS:
            raise TooManyRequests(
                f"{self._open} proposals await approval, and no more are kept.",
                "Approve some, or withdraw some: llmasos-coordinator proposal list.",
            )
        size = len(envelope) + needed * APPROVAL_BYTES
        if size > MAX_ENVELOPE_BYTES:
            raise MalformedStatement(
                f"With {needed} approvals this statement has {size:,} bytes, at most {MAX_ENVELOPE_BYTES:,} allowed."
            )
        row = row_of(change, envelope, digest, rfc3339(self._ports.clock.now()))
        with self._database.transaction() as tx:
            tx.propose(row)
        self.recount()
        log.info("proposal made", extra={**fields(row), "approvals_needed": needed})

    def _complete(self, row: ProposalRow) -> Place | None:
        """Append the draft's statement, if enough approved it; None where it waits.

        What stands in the way then (a blob that is missing, a disk) is logged, and tried again when somebody asks.
        """
        given = self._drafts.given(row)
        if len(given) < self._drafts.needed(row):
            return None
        change, state = change_of(row), self._ledger.state
        try:
            if isinstance(change.content, PlanStatement):
                self._ports.plans.expect_initial(change.content)
            envelope = with_approvals(row.envelope, given.values())
            statement = verify(parse(envelope), state.genesis.coordinator_key)
            place = self._ledger.take(statement, lambda tx: change.write(tx, state.size))
        except StorageFailure:
            raise
        except LLMasOSError as err:
            log.error("proposal stalled", extra={**fields(row), "code": err.code, "error": err.message})
            return None
        self.recount()
        log.info("proposal appended", extra={**fields(row), "approved_by": sorted(given), "ledger_index": place.index})
        return place

    def _drop(self, row: ProposalRow) -> None:
        with self._database.transaction() as tx:
            tx.drop_proposal(row.purpose, row.subject)
        self.recount()
