"""One family of errors; every code is a contract.

An error says which object, what was expected, what came, and what to do. Its `code` is stable and has a heading in
docs/errors.md; its gRPC status is how it travels. Illegal call orders inside the program are bugs, not members of this tree.

    LLMasOSError
    ├── UsageError               a person's input: files, fields, flags                        exit 2
    ├── RefusalError             what a peer sent breaks a rule; may become a refusal statement  exit 3
    │   ├── StatementError       envelope, payload, signature, place in the ledger
    │   ├── IdentityError        who speaks: certificates, roster, roles, invitations
    │   ├── BlobError            bytes against their digest, size, quota
    │   └── DeltaError           tensors, numbers and weights of a contribution
    └── OperationError           the world: disk, network, a process                            exit 1
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """gRPC status codes, by number, so that this module needs no grpc."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class LLMasOSError(Exception):
    """Root of everything that users and peers may see.

    Args:
        message: one sentence: the object, what was expected, what came.
        fix: what to do; the class's `default_fix` where none is given.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[Status] = Status.INTERNAL
    exit_code: ClassVar[int] = 1
    default_fix: ClassVar[str] = "Report this with the log of the command that failed."

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix or self.default_fix

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.fix}"


# --- what a person typed or wrote ------------------------------------------------------------------------------------


class UsageError(LLMasOSError):
    """A command, a file or a field is not as it must be."""

    code = "usage"
    status = Status.INVALID_ARGUMENT
    exit_code = 2
    default_fix = "See --help."


class InvalidConfiguration(UsageError):
    """A configuration file or plan breaks its schema; the message names file, line, field and what was expected."""

    code = "invalid-configuration"
    default_fix = "Correct the named field; `llmasos plan schema` prints what a plan may hold."


class InvalidName(UsageError):
    """A name is not lower-case letters, digits and hyphens."""

    code = "invalid-name"
    default_fix = "Use 1 to 63 lower-case letters, digits and hyphens, starting with a letter."


class NotInitialised(UsageError):
    """A home folder holds no coordinator or participant."""

    code = "not-initialised"
    default_fix = "Run `llmasos-coordinator init` or `llmasos-participant join` first, or name the right --home."


class AlreadyInitialised(UsageError):
    """A home folder already holds one."""

    code = "already-initialised"
    default_fix = "Name another --home, or remove the old folder if nothing in it is needed any more."


class TooLittleData(UsageError):
    """A folder of text holds less than training needs."""

    code = "too-little-data"
    default_fix = "Name a folder with more text; .txt, .md, .py, .jsonl and .csv files are read."


class UnreadableData(UsageError):
    """A file of text is not in the form that its ending says; the message names file and line, never the text."""

    code = "unreadable-data"
    default_fix = (
        "Correct or remove the named file; .jsonl holds one JSON object a line, .csv a header with column names."
    )


class UnknownObject(UsageError):
    """A run, blob, institution or plan of that name does not exist, or the prefix is not unique."""

    code = "unknown-object"
    status = Status.NOT_FOUND
    default_fix = "List what exists with `run list`, `institution list` or `plan list`."


class MissingExtra(UsageError):
    """A command needs packages that are not installed."""

    code = "missing-extra"
    default_fix = "Install them: pip install 'llmasos[train]'."


# --- what a peer sent ------------------------------------------------------------------------------------------------


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


class UnsupportedProtocol(StatementError):
    """A protocol version that this side does not speak."""

    code = "unsupported-protocol"
    status = Status.FAILED_PRECONDITION
    default_fix = "Install a release that speaks the consortium's protocol version."


class BadCommitment(StatementError):
    """Metrics do not match the salted commitment in the contribution, or are not well formed."""

    code = "bad-commitment"
    default_fix = "Send the metrics and the salt that the contribution commits to."


class LedgerConflict(StatementError):
    """An entry differs from what was seen at that index, or does not follow from the ones before."""

    code = "ledger-conflict"
    status = Status.DATA_LOSS
    default_fix = "Stop, keep both versions, and compare with other institutions: see docs/operations.md#two-histories."


class IdentityError(RefusalError):
    """Base of what can be wrong with who speaks."""

    code = "identity"
    status = Status.UNAUTHENTICATED


class UnknownCertificate(IdentityError):
    """The TLS certificate is not one that the newest roster names."""

    code = "unknown-certificate"
    default_fix = "Join with a fresh invitation; revoked and superseded certificates stay refused."


class CertificateExpired(IdentityError):
    """A certificate is outside its time of validity."""

    code = "certificate-expired"
    default_fix = "Check this machine's clock, then ask the operator for a new invitation."


class RoleMissing(IdentityError):
    """The caller's roster entry lacks the role that this call needs."""

    code = "role-missing"
    status = Status.PERMISSION_DENIED
    default_fix = "Use the operator's home folder, or ask the operator for the role."


class NotAuthorised(IdentityError):
    """No statement gives the caller this blob."""

    code = "not-authorised"
    status = Status.PERMISSION_DENIED
    default_fix = "Blobs are readable by those whom a plan or round names."


class InvalidInvitation(IdentityError):
    """An invitation is unreadable, unknown, or its secret is wrong."""

    code = "invalid-invitation"
    default_fix = "Copy the whole invitation, with its first and last line, or ask the operator for a new one."


class InvitationExpired(IdentityError):
    """An invitation is past its time."""

    code = "invitation-expired"
    default_fix = "Ask the operator for a new one: llmasos-coordinator institution invite NAME."


class InvitationUsed(IdentityError):
    """An invitation was redeemed with other keys."""

    code = "invitation-used"
    status = Status.ALREADY_EXISTS
    default_fix = "If it was not you, tell the operator at once; else ask for a new one."


class TooManyRequests(IdentityError):
    """A rate or count limit of this caller is reached."""

    code = "too-many-requests"
    status = Status.RESOURCE_EXHAUSTED
    default_fix = "Wait a moment; limits are the coordinator's settings."


class BlobError(RefusalError):
    """Base of what can be wrong with blob bytes."""

    code = "blob"


class CorruptChunk(BlobError):
    """A chunk's bytes do not have the digest that its leaf says, on the wire or on disk."""

    code = "corrupt-chunk"
    status = Status.DATA_LOSS
    default_fix = "Send the chunk again; if it was read from disk, check that disk."


class TruncatedChunk(BlobError):
    """A chunk or stream ended before its declared size, or went beyond it."""

    code = "truncated-chunk"
    default_fix = "Begin again: only the missing chunks are asked for."


class BlobTooLarge(BlobError):
    """A blob is larger than what it is for allows, or than the quota or the disk has room for."""

    code = "blob-too-large"
    status = Status.RESOURCE_EXHAUSTED
    default_fix = (
        "A delta has exactly the size that the plan's tensor manifest gives; quotas are the coordinator's settings."
    )


class BadBlobReference(BlobError):
    """Leaf list, size, algorithm and root of a blob do not fit together."""

    code = "bad-blob-reference"


class MissingBlob(BlobError):
    """A blob that is referred to is not, or not wholly, there."""

    code = "missing-blob"
    status = Status.FAILED_PRECONDITION
    default_fix = "Send the blob whole before the statement that names it."


class DeltaError(RefusalError):
    """Base of what can be wrong with a delta and its weight."""

    code = "delta"


class WrongTensors(DeltaError):
    """Tensors are not exactly the manifest's: names, order, shapes, dtype, offsets."""

    code = "wrong-tensors"
    default_fix = "Write the delta in the layout that the plan's tensor manifest fixes (docs/protocol.md#tensors)."


class NonFiniteDelta(DeltaError):
    """A delta holds NaN or infinity."""

    code = "non-finite-delta"
    default_fix = "Usually a bug or a learning rate too high: look at the local loss curve before training again."


class DeltaTooLong(DeltaError):
    """The L2 norm of a delta is above the plan's max_delta_l2."""

    code = "delta-too-long"
    default_fix = "Check the local learning rate against the plan's; the bound is the plan's max_delta_l2."


class ImplausibleWeight(DeltaError):
    """num_tokens is not positive, or above what the plan's local training implies."""

    code = "implausible-weight"
    default_fix = "num_tokens counts the tokens trained on in this round, at most steps × batch × sequence length."


class ModelOverflow(DeltaError):
    """Base and deltas are finite, the new model would not be."""

    code = "model-overflow"
    status = Status.FAILED_PRECONDITION
    default_fix = "Lower the server optimizer's learning rate or the plan's max_delta_l2; the model stays as it was."


# --- the world -------------------------------------------------------------------------------------------------------


class OperationError(LLMasOSError):
    """Something outside the program failed."""

    code = "operation"
    status = Status.UNAVAILABLE
    exit_code = 1


class CoordinatorUnreachable(OperationError):
    """No answer from the coordinator's address."""

    code = "coordinator-unreachable"
    default_fix = "Check that the coordinator runs and that its address and port are reachable from here."


class PortInUse(OperationError):
    """An address to listen on is taken or not this machine's."""

    code = "port-in-use"
    default_fix = "Stop the other process, or choose another port in the configuration."


class HomeLocked(OperationError):
    """Another process already runs on this home folder."""

    code = "home-locked"
    default_fix = "Stop the other process first; two daemons never share a home."


class StorageFailure(OperationError):
    """Disk full, file unreadable, database locked."""

    code = "storage-failure"
    default_fix = "Check free space and permissions of the home folder."


class ReducerSelfTestFailed(OperationError):
    """This machine's arithmetic does not give the golden digest, so nothing may be aggregated here."""

    code = "reducer-self-test-failed"
    status = Status.INTERNAL
    default_fix = "Unset flush-to-zero settings and custom BLAS or numpy builds; see docs/protocol.md#arithmetic."


class WorkerFailed(OperationError):
    """The training process ended or reported a failure."""

    code = "worker-failed"
    status = Status.INTERNAL
    default_fix = "Look at worker.log in the participant's home folder."


class RunFailed(OperationError):
    """A run ended without a model."""

    code = "run-failed"
    status = Status.ABORTED
    default_fix = "`llmasos-coordinator run watch RUN` names institution and cause for each round."


class InternalError(LLMasOSError):
    """A bug here: the detail stays in this side's log."""

    code = "internal"


def all_errors(base: type[LLMasOSError] = LLMasOSError) -> dict[str, type[LLMasOSError]]:
    """Every error class by its code, `base` included.

    `internal` names InternalError, the root's concrete form.
    """
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(all_errors(child))
    return found
