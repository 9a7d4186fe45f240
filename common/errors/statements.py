"""What a peer sent breaks a rule: the root of refusals, and statements."""

from __future__ import annotations

from common.errors.base import LLMasOSError, Status


class RefusalError(LLMasOSError):
    """A rule of the protocol is broken by what came in. Nothing of it was kept but its digest."""

    code = "refused"
    status = Status.INVALID_ARGUMENT
    exit_code = 3
    default_fix = "Correct what was sent; nothing of it was taken."


class MalformedMessage(RefusalError):
    """A wire field is absent, out of range or too large."""

    code = "malformed-message"


class StatementError(RefusalError):
    """Base of what can be wrong with a statement."""

    code = "statement"


class MalformedStatement(StatementError):
    """Not a canonical envelope around a payload that its kind allows."""

    code = "malformed-statement"
    default_fix = "Send the canonical bytes as docs/protocol.md#statements defines them."


class BadSignature(StatementError):
    """The signature does not verify under the key that the roster names."""

    code = "bad-signature"
    status = Status.UNAUTHENTICATED
    default_fix = "Sign with the key that the roster names for this institution."


class WrongSigner(StatementError):
    """Signed by one institution, sent on another's connection, or by a party that may not make such a statement."""

    code = "wrong-signer"
    status = Status.PERMISSION_DENIED
    default_fix = "Each institution sends its own statements over its own connection."


class WrongParent(StatementError):
    """The statement does not follow from where it says: replay, wrong round, wrong base or wrong run."""

    code = "wrong-parent"
    status = Status.FAILED_PRECONDITION
    default_fix = "Follow the ledger and answer its newest round; a statement is never sent twice under another parent."


class SlotTaken(StatementError):
    """The slot holds another signed statement already."""

    code = "slot-taken"
    status = Status.ALREADY_EXISTS
    default_fix = "One slot, one statement, ever: send the first one's very bytes again if its receipt was lost."


class RoundNotOpen(StatementError):
    """The round takes no contributions now."""

    code = "round-not-open"
    status = Status.FAILED_PRECONDITION
    default_fix = "Go on with the next round; this one was sealed, abandoned or has passed its deadline."


class NotInCohort(StatementError):
    """The institution is not part of this round or run."""

    code = "not-in-cohort"
    status = Status.PERMISSION_DENIED
    default_fix = "Wait for a round whose cohort names this institution."


class PolicyRefuses(RefusalError):
    """This institution's policy does not let it take part."""

    code = "policy-refuses"
    default_fix = "Change policy.yaml, or leave the plan refused."


class UnsupportedProtocol(StatementError):
    """A protocol version that this side does not speak."""

    code = "unsupported-protocol"
    status = Status.FAILED_PRECONDITION
    default_fix = "Install a release that speaks it, or wait until the other side has one that speaks yours."


class BadCommitment(StatementError):
    """Metrics do not match the salted commitment in the contribution, or are not well formed."""

    code = "bad-commitment"
    default_fix = "Send the metrics and the salt that the contribution commits to."


class LedgerConflict(StatementError):
    """An entry differs from what was seen at that index, or does not follow from the ones before."""

    code = "ledger-conflict"
    status = Status.DATA_LOSS
    default_fix = "Stop, keep both versions, and compare with other institutions: see docs/operations.md#two-histories."


class TwoHistories(LedgerConflict):
    """The coordinator signed two ledgers of which neither is a beginning of the other, or went back to an older one."""

    code = "two-histories"
    default_fix = (
        "Stop, and export the evidence: llmasos-participant evidence export FILE. "
        "What each side does next: docs/operations.md#two-histories."
    )


class NewLineage(LedgerConflict):
    """The coordinator began a new lineage: entries that it had signed for are given up, since nobody holds them."""

    code = "new-lineage"
    status = Status.FAILED_PRECONDITION
    default_fix = "Read what is given up, and decide: llmasos-participant lineage show, then lineage accept."


class NotEnoughApprovals(StatementError):
    """Fewer institutions signed this statement than genesis asks for."""

    code = "not-enough-approvals"
    status = Status.FAILED_PRECONDITION
    default_fix = "Let institutions approve the draft: llmasos-participant proposal list."


class ApprovalPending(RefusalError):
    """What was asked for is drafted, and enters the ledger once enough institutions approved it."""

    code = "approval-pending"
    status = Status.FAILED_PRECONDITION
    default_fix = "Ask the institutions to approve it, then do the same again: llmasos-participant proposal list."
