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

from common.errors.base import (
    LLMasOSError,
    Status,
)
from common.errors.blobs import (
    BadBlobReference,
    BlobError,
    BlobTooLarge,
    CorruptChunk,
    DeltaError,
    DeltaTooLong,
    ImplausibleWeight,
    MissingBlob,
    ModelOverflow,
    NonFiniteDelta,
    TruncatedChunk,
    WrongDeltaCount,
    WrongTensors,
)
from common.errors.identity import (
    CertificateExpired,
    IdentityError,
    InvalidInvitation,
    InvitationExpired,
    InvitationUsed,
    NotAuthorised,
    RoleMissing,
    TooManyRequests,
    UnknownCertificate,
    WrongFingerprint,
)
from common.errors.operations import (
    CompiledLoopsUnfit,
    CoordinatorRecovering,
    CoordinatorUnreachable,
    DaemonNotRunning,
    DeviceFailed,
    HomeLocked,
    InternalError,
    NameNotResolved,
    OperationError,
    OutOfMemory,
    PortBlocked,
    PortInUse,
    ProxyRefused,
    ReducerSelfTestFailed,
    RunFailed,
    StorageFailure,
    TlsIntercepted,
    WaitTimedOut,
    WorkerFailed,
    WorkerKilled,
)
from common.errors.statements import (
    ApprovalPending,
    BadCommitment,
    BadSignature,
    LedgerConflict,
    MalformedMessage,
    MalformedStatement,
    NewLineage,
    NotEnoughApprovals,
    NotInCohort,
    PolicyRefuses,
    RefusalError,
    RoundNotOpen,
    SlotTaken,
    StatementError,
    TwoHistories,
    UnsupportedProtocol,
    WrongParent,
    WrongSigner,
)
from common.errors.usage import (
    AlreadyInitialised,
    DataInUse,
    InvalidConfiguration,
    InvalidName,
    MalformedBackup,
    MissingExtra,
    NotInitialised,
    NotRecovered,
    TooLittleData,
    UnknownObject,
    UnreadableData,
    UsageError,
    WrongPassphrase,
)


def all_errors(base: type[LLMasOSError] = LLMasOSError) -> dict[str, type[LLMasOSError]]:
    """Every error class by its code, `base` included.

    `internal` names InternalError, the root's concrete form.
    """
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(all_errors(child))
    return found


__all__ = [
    "AlreadyInitialised",
    "ApprovalPending",
    "BadBlobReference",
    "BadCommitment",
    "BadSignature",
    "BlobError",
    "BlobTooLarge",
    "CertificateExpired",
    "CompiledLoopsUnfit",
    "CoordinatorRecovering",
    "CoordinatorUnreachable",
    "CorruptChunk",
    "DaemonNotRunning",
    "DataInUse",
    "DeltaError",
    "DeltaTooLong",
    "DeviceFailed",
    "HomeLocked",
    "IdentityError",
    "ImplausibleWeight",
    "InternalError",
    "InvalidConfiguration",
    "InvalidInvitation",
    "InvalidName",
    "InvitationExpired",
    "InvitationUsed",
    "LLMasOSError",
    "LedgerConflict",
    "MalformedBackup",
    "MalformedMessage",
    "MalformedStatement",
    "MissingBlob",
    "MissingExtra",
    "ModelOverflow",
    "NameNotResolved",
    "NewLineage",
    "NonFiniteDelta",
    "NotAuthorised",
    "NotEnoughApprovals",
    "NotInCohort",
    "NotInitialised",
    "NotRecovered",
    "OperationError",
    "OutOfMemory",
    "PolicyRefuses",
    "PortBlocked",
    "PortInUse",
    "ProxyRefused",
    "ReducerSelfTestFailed",
    "RefusalError",
    "RoleMissing",
    "RoundNotOpen",
    "RunFailed",
    "SlotTaken",
    "StatementError",
    "Status",
    "StorageFailure",
    "TlsIntercepted",
    "TooLittleData",
    "TooManyRequests",
    "TruncatedChunk",
    "TwoHistories",
    "UnknownCertificate",
    "UnknownObject",
    "UnreadableData",
    "UnsupportedProtocol",
    "UsageError",
    "WaitTimedOut",
    "WorkerFailed",
    "WorkerKilled",
    "WrongDeltaCount",
    "WrongFingerprint",
    "WrongParent",
    "WrongPassphrase",
    "WrongSigner",
    "WrongTensors",
    "all_errors",
]
