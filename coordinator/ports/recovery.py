"""What a coordinator that may hold less of its ledger than was signed for asks of institutions."""

from __future__ import annotations

from typing import Protocol

from common.blobs.reference import BlobRef
from common.statements.kinds import Member
from common.wire.messages import Presented, Wanted


class RecoveryDesk(Protocol):
    """Any thread."""

    @property
    def pending(self) -> bool:
        """Whether the coordinator recovers, and signs nothing."""
        ...

    def expect_following(self, follower: str, known: int = 0, lineage: int = 0) -> None:
        """That this institution, which knows of `known` entries and of that lineage, may follow.

        Raises:
            CoordinatorRecovering: it is to present what it saw.
            NewLineage: it saw what was given up since.
        """
        ...

    def present(self, sender: Member, presented: Presented) -> Wanted:
        """Take in what an institution brings; what else is wanted of it.

        Raises:
            BadSignature, MalformedStatement: the checkpoint is not the log's; nothing was taken.
            MalformedMessage: the entries are not those of the checkpoint's tree; nothing was taken.
            BadCommitment: metrics are not those that the contribution commits to.
        """
        ...

    def check_upload(self, sender: Member, ref: BlobRef) -> None:
        """
        Raises:
            NotAuthorised: nobody asked this institution for that blob.
        """
        ...
