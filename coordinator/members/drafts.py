"""Drafts as they are stored, read against the ledger as it stands: how many approvals each needs, and whose it has."""

from __future__ import annotations

from common.errors import ApprovalPending
from common.identity.keys import key_id
from common.ledger.rulebook.approvals import approvals_needed, approvers
from common.newest import Newest
from common.statements.envelope import Approval, parse
from common.statements.form import open_envelope
from common.statements.kinds import PlanStatement
from common.wire.messages import Proposal
from coordinator.ledger import Ledger
from coordinator.members.changes import Change, in_words
from coordinator.store.database import Database
from coordinator.store.proposals import ProposalRow

MOST_COUNTED = 256
"""Drafts of which it is remembered how many approvals they need."""
ID_DIGITS = 8
"""Digits of a payload's SHA-256 that people are shown: any unique beginning will do."""


class Drafts:
    """Reads only. A large roster takes a tenth of a second to parse, and any member may ask: it is parsed once."""

    def __init__(self, ledger: Ledger, database: Database) -> None:
        self._ledger, self._database = ledger, database
        self._counted_at: tuple[str, int] | None = None
        self._counted = Newest[str, int](MOST_COUNTED)

    @property
    def mark(self) -> tuple[str, int]:
        """What drafts depend on: the newest roster, and how many have left."""
        state = self._ledger.state
        return (state.roster_place or state.genesis_place).digest, len(state.departures)

    def needed(self, row: ProposalRow) -> int:
        """Institutions that must approve the draft, if it comes next."""
        if self._counted_at != self.mark:
            self._counted_at, self._counted = self.mark, Newest(MOST_COUNTED)
        known = self._counted.get(row.payload_sha256)
        if known is not None:
            return known
        draft = parse(row.envelope)
        found = approvals_needed(self._ledger.state, draft.kind, draft.predicate)
        self._counted[row.payload_sha256] = found
        return found

    def given(self, row: ProposalRow) -> dict[str, Approval]:
        """Approvals by those who may approve now, by name; whoever left meanwhile is not among them."""
        keys = {name: key_id(key) for name, key in approvers(self._ledger.state).items()}
        return {
            each.institution: Approval(each.keyid, each.signature)
            for each in self._database.approvals(row.payload_sha256)
            if keys.get(each.institution) == each.keyid
        }

    def pending(self, payload_sha256: str) -> ApprovalPending:
        """What whoever asked for a draft is told."""
        row = self._database.proposal(payload_sha256)
        if row is None:
            raise RuntimeError(f"the draft {payload_sha256} went away while it was asked for")
        names, needed = sorted(self.given(row)), self.needed(row)
        by = f" ({', '.join(names)})" if names else ""
        return ApprovalPending(
            f"{in_words(row.purpose, row.subject)} awaits approval: {len(names)} of {needed} institutions have "
            f"approved{by}.",
            "Ask the institutions to approve it, then do the same again: "
            f"llmasos-participant proposal approve {payload_sha256[:ID_DIGITS]}.",
        )

    def listed(self, max_bytes: int) -> tuple[Proposal, ...]:
        """Oldest first: one, then as many as have at most `max_bytes` of payload together."""
        found, size = list[Proposal](), 0
        for row in self._database.proposals():
            payload = open_envelope(row.envelope).payload
            size += len(payload)
            if found and size > max_bytes:
                break
            found.append(Proposal(payload, row.proposed_at, self.needed(row), tuple(sorted(self.given(row)))))
        return tuple(found)

    def awaited_blobs(self) -> set[str]:
        """Roots of the blobs that drafted plans start from."""
        plans = [parse(row.envelope).predicate for row in self._database.proposals() if row.purpose == "run"]
        initial = [plan.initial for plan in plans if isinstance(plan, PlanStatement)]
        return {ref.root for blobs in initial for ref in (blobs.model, blobs.tokenizer)}


def row_of(change: Change, envelope: bytes, digest: str, proposed_at: str) -> ProposalRow:
    """A change's draft, as it is stored."""
    return ProposalRow(
        payload_sha256=digest,
        purpose=change.purpose,
        subject=change.subject,
        request=change.request,
        proposed_at=proposed_at,
        envelope=envelope,
        certificate_pem=change.certificate_pem,
        replaces=change.replaces,
        invitation=change.invitation,
        redeemed_by=change.redeemed_by,
    )


def fields(row: ProposalRow) -> dict[str, object]:
    """What events say of a draft."""
    return {"proposal": row.payload_sha256, "purpose": row.purpose, "subject": row.subject}
