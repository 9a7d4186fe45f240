"""Drafts that await approvals, as this institution sees them, and its signature under one. Needs no daemon, and disturbs none.

    with ProposalDesk(home, SystemClock()) as desk:
        found = desk.find("3f2a90c1")         # by a unique beginning of the payload's SHA-256
        desk.approve(found)                   # checked by the own copy of the ledger, signed, kept in the journal, sent

What is shown is read from the very payload that would be signed, against the own copy of the ledger: whatever the coordinator
says of a draft counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from common.clock import Clock, SystemClock, rfc3339
from common.errors import (
    CoordinatorUnreachable,
    MalformedStatement,
    RefusalError,
    RoleMissing,
    StorageFailure,
    UnknownObject,
    WrongParent,
)
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.ledger.rulebook.approvals import approvers
from common.ledger.rulebook.membership import roster_that_follows
from common.ledger.rulebook.plans import plan_that_follows
from common.ledger.state import LedgerState
from common.statements.approvals import approval_signature
from common.statements.envelope import Draft, parse, parse_payload, signed_payload
from common.statements.kinds import Kind, PlanStatement, Roster
from common.wire.messages import Approved, Proposal
from common.wire.reach import explain
from common.wire.session import Session, TlsFiles
from participant.config import HomeLayout, load_config
from participant.identity.keys import SigningKeys
from participant.memory.journal import Egress, Journal, SignedSlot
from participant.plans.deciding import PlanDesk
from participant.roster_changes import changes
from participant.speed import pacing_of

_LIST = "See what is open: llmasos-participant proposal list."
_CATCH_UP = (
    "Let the daemon follow the ledger (llmasos-participant start), then look again: llmasos-participant proposal list."
)


class Line(Protocol):
    """What asking the coordinator takes: a Session, or what stands for one in a test."""

    address: str

    def proposals(self) -> tuple[Proposal, ...]: ...

    def approve(self, payload_sha256: str, signature: bytes) -> Approved: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A draft that came, read and checked here."""

    id: str
    """SHA-256 of the payload, hexadecimal digits."""
    proposal: Proposal
    draft: Draft | None
    """None where the payload cannot be read; `fault` says why."""
    words: tuple[str, ...]
    """What it changes, a sentence each."""
    fault: RefusalError | None
    """Why this institution cannot approve it."""
    again: bool = False
    """This institution approved the same change before, over an older roster: that approval is void."""


class ProposalDesk:
    """Over one home folder; a context manager.

    Raises:
        NotInitialised: the folder holds no participant.
        InvalidConfiguration, StorageFailure: its files are wrong; the message says which.
    """

    def __init__(self, home: Path, clock: Clock, connect: Callable[[Path], Line] | None = None) -> None:
        self.layout, self._clock = HomeLayout(home), clock
        self._config = load_config(home)
        self.institution = self._config.institution
        with PlanDesk(home, clock) as plans:
            self.state: LedgerState = plans.state
        self._journal = Journal(self.layout.journal)
        self._line = (connect or session_of)(home)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()
        self._journal.close()

    # --- looking -----------------------------------------------------------------------------------------------------

    def listed(self) -> tuple[Awaiting, ...]:
        """Every open draft, oldest first.

        Raises:
            CoordinatorUnreachable: by its kinds, why.
        """
        try:
            proposals = self._line.proposals()
        except CoordinatorUnreachable as err:
            raise explain(self._line.address, self.state.genesis) or err from err
        approved = self._approved_before()
        return tuple(self._read(each, approved) for each in proposals)

    def find(self, prefix: str, kinds: frozenset[Kind] | None = None) -> Awaiting:
        """The one open draft whose id begins so, or the only one of these kinds where the prefix is empty.

        Raises:
            UnknownObject: none or several do; says where it stands in the ledger, if it does.
        """
        of_kind = [each for each in self.listed() if kinds is None or (each.draft and each.draft.kind in kinds)]
        found = [each for each in of_kind if each.id.startswith(prefix.lower())]
        if len(found) == 1:
            return found[0]
        if not found and prefix:
            for digest, place in self.state.places.items():
                if digest.startswith(prefix.lower()) and place.kind in (Kind.ROSTER, Kind.PLAN):
                    raise UnknownObject(
                        f"{prefix} awaits no approval any more: it stands in the ledger, at {place.index}.", _LIST
                    )
        open_ones = ", ".join(each.id[:8] for each in of_kind[:8]) or "none"
        if not of_kind:
            raise UnknownObject("Nothing of this kind awaits approval.", _LIST)
        raise UnknownObject(f"{len(found)} open proposals begin with {prefix!r}; open: {open_ones}.", _LIST)

    def _read(self, proposal: Proposal, approved: frozenset[tuple[str, ...]]) -> Awaiting:
        digest = sha256(proposal.payload).hexdigest()
        try:
            draft = parse_payload(proposal.payload)
        except RefusalError as err:
            return Awaiting(digest, proposal, None, ("It cannot be read.",), err)
        words, mine = self._words(draft), self.institution in proposal.approved_by
        return Awaiting(digest, proposal, draft, words, self._fault(draft), not mine and words in approved)

    def _words(self, draft: Draft) -> tuple[str, ...]:
        match draft.predicate:
            case Roster():
                return changes(self._roster_below(draft), draft.predicate)
            case PlanStatement():
                return (f"Run {draft.predicate.run} starts, by the plan {draft.predicate.plan.name}.",)
        return (f"A statement of kind {draft.kind}, which this release cannot show.",)

    def _fault(self, draft: Draft) -> RefusalError | None:
        """Why it does not follow from the own copy of the ledger."""
        try:
            match draft.predicate:
                case Roster():
                    roster_that_follows(self.state, draft)
                case PlanStatement():
                    plan_that_follows(self.state, draft)
                case _:
                    raise MalformedStatement(f"A statement of kind {draft.kind} is none that this release can approve.")
        except WrongParent as err:
            return WrongParent(
                f"It does not follow from this institution's copy of the ledger: {err.message}", _CATCH_UP
            )
        except RefusalError as err:
            return err
        return None

    def _roster_below(self, draft: Draft) -> Roster | None:
        """The roster that a draft follows, as the own copy has it."""
        place = self.state.places.get(draft.parent.digest)
        if place is None or place.kind is not Kind.ROSTER:
            return self.state.roster
        if self.state.roster_place is not None and place.index == self.state.roster_place.index:
            return self.state.roster
        predicate = parse(self._journal.ledger()[place.index]).predicate
        return predicate if isinstance(predicate, Roster) else None

    def _approved_before(self) -> frozenset[tuple[str, ...]]:
        """In words, the changes that this institution approved and that are in no ledger."""
        slots = [each for each in self._journal.all_signed() if each.slot.startswith("approval/")]
        drafts = [parse_payload(parse(each.envelope).payload) for each in slots if each.digest not in self.state.places]
        return frozenset(self._words(draft) for draft in drafts)

    # --- approving ---------------------------------------------------------------------------------------------------

    def approve(self, found: Awaiting) -> Approved:
        """Sign exactly this payload, keep that, send the signature.

        Raises:
            RefusalError: it does not follow from the own copy of the ledger, or this institution may not approve.
            CoordinatorUnreachable: what was signed is kept; the same command sends it again.
        """
        if found.fault is not None:
            raise found.fault
        key, payload = self._key(), found.proposal.payload
        signature, envelope = approval_signature(payload, key).signature, signed_payload(payload, key)
        now = rfc3339(self._clock.now())
        self._journal.sign(SignedSlot(f"approval/{found.id}", found.id, envelope, b"", b"", now))
        approved = self._line.approve(found.id, signature)
        self._journal.book(Egress(now, "approval", len(signature), found.id, self._line.address))
        return approved

    def _key(self) -> SigningKey:
        """The key that the own copy's newest roster names: the draft follows that roster, so it is the one that counts, also
        while a new key is on its way.

        Raises:
            RoleMissing: by that roster this institution does not approve.
            StorageFailure, WrongPassphrase: the key cannot be read.
        """
        member = self.state.member(self.institution)
        if self.institution not in approvers(self.state):
            what = f"{member.status}, with the roles {', '.join(member.roles)}" if member else "not named by the roster"
            raise RoleMissing(f"{self.institution} is {what}; only an active institution approves.")
        passphrase = read_passphrase(self._config.identity.passphrase_file)
        keys = SigningKeys(self.layout.signing_key, passphrase, self.institution, lambda: self.state)
        key = keys.named()
        if key is None:
            raise StorageFailure(
                f"{self.layout.signing_key} is not the signing key that the roster names for {self.institution}.",
                "Restore the identity folder from a backup that is not older than the last rotation.",
            )
        return key


def session_of(home: Path) -> Session:
    """This institution's own connection to the coordinator.

    Raises:
        NotInitialised, InvalidConfiguration: the home is not whole.
    """
    layout, config = HomeLayout(home), load_config(home)
    passphrase = read_passphrase(config.identity.passphrase_file)
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    return Session(
        config.coordinator.work,
        genesis,
        TlsFiles(layout.tls_key, layout.tls_certificate, passphrase),
        streams=config.transfer.streams,
        bulk=config.transfer.bulk,
        pacing=pacing_of(config.transfer, SystemClock()),
    )
