"""Drafts that await approvals, and the approvals that came: rows and queries (tables `proposals` and `approvals`).

`Database` reads and `Transaction` writes through the classes below. A draft and its approvals go together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from coordinator.store import tables


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """A draft. `purpose` and `subject` say what it is for: one draft for each pair."""

    payload_sha256: str
    purpose: str
    subject: str
    request: str
    """Digest of what was asked for: the same again is the same draft."""
    proposed_at: str
    envelope: bytes
    """The statement with its author's signature alone."""
    certificate_pem: bytes | None = None
    replaces: str | None = None
    invitation: str | None = None
    redeemed_by: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    payload_sha256: str
    institution: str
    keyid: str
    signature: bytes
    approved_at: str


class ProposalReads(ABC):
    """What `Database` reads of drafts."""

    @abstractmethod
    def _rows(self, query: Any) -> list[Any]: ...

    def proposals(self) -> list[ProposalRow]:
        """All open drafts, oldest first."""
        order = tables.proposals.c.proposed_at, tables.proposals.c.payload_sha256
        return [ProposalRow(*row) for row in self._rows(select(tables.proposals).order_by(*order))]

    def proposal(self, payload_sha256: str) -> ProposalRow | None:
        rows = self._rows(select(tables.proposals).where(tables.proposals.c.payload_sha256 == payload_sha256))
        return ProposalRow(*rows[0]) if rows else None

    def proposal_for(self, purpose: str, subject: str) -> ProposalRow | None:
        rows = self._rows(
            select(tables.proposals).where(tables.proposals.c.purpose == purpose, tables.proposals.c.subject == subject)
        )
        return ProposalRow(*rows[0]) if rows else None

    def count_proposals(self) -> int:
        return int(self._rows(select(func.count()).select_from(tables.proposals))[0][0])

    def approvals(self, payload_sha256: str) -> list[ApprovalRow]:
        """Those of a draft, ascending by institution."""
        column = tables.approvals.c
        query = select(tables.approvals).where(column.payload_sha256 == payload_sha256).order_by(column.institution)
        return [ApprovalRow(*row) for row in self._rows(query)]


class ProposalWrites:
    """What `Transaction` writes of drafts."""

    _connection: Connection

    def propose(self, row: ProposalRow) -> None:
        """A new draft, in the place of the one for the same subject, whose approvals are void."""
        self.drop_proposal(row.purpose, row.subject)
        self._connection.execute(
            insert(tables.proposals).values(
                payload_sha256=row.payload_sha256,
                purpose=row.purpose,
                subject=row.subject,
                request=row.request,
                proposed_at=row.proposed_at,
                envelope=row.envelope,
                certificate_pem=row.certificate_pem,
                replaces=row.replaces,
                invitation=row.invitation,
                redeemed_by=row.redeemed_by,
            )
        )

    def drop_proposal(self, purpose: str, subject: str) -> bool:
        """Whether there was one."""
        column = tables.proposals.c
        this = (column.purpose == purpose, column.subject == subject)
        found = self._connection.execute(select(column.payload_sha256).where(*this)).scalar_one_or_none()
        if found is None:
            return False
        self._connection.execute(delete(tables.approvals).where(tables.approvals.c.payload_sha256 == found))
        self._connection.execute(delete(tables.proposals).where(*this))
        return True

    def keep_approval(self, row: ApprovalRow) -> None:
        """An institution's approval of a draft; a later one takes its place."""
        column = tables.approvals.c
        self._connection.execute(
            delete(tables.approvals).where(
                column.payload_sha256 == row.payload_sha256, column.institution == row.institution
            )
        )
        self._connection.execute(
            insert(tables.approvals).values(
                payload_sha256=row.payload_sha256,
                institution=row.institution,
                keyid=row.keyid,
                signature=row.signature,
                approved_at=row.approved_at,
            )
        )
