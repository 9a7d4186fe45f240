"""What a statement of each kind says (docs/protocol.md#kinds). Pure data: no signing, no IO.

A statement is an in-toto Statement v1 whose single subject is its parent, by the SHA-256 of the parent's payload, and whose
predicate is one of the models below. The chain of parents is the protocol's replay protection: contribution → round-opened →
previous round-closed → plan → roster → genesis.

No predicate holds a float: rule inputs are integers or decimal text, so that every reader gets the same number. Fields for
what later releases add (stages, relays between institutions, masked weights, privacy, asynchronous rounds) stand here from
the start, with the one value that this release allows, because adding them later would change what old ledgers mean.

    fields        kinds, times, codes, numbers
    membership    genesis, roster
    plans         plan, answer
    rounds        round-opened, contribution, refusal, round-closed, control
    releases      attestation, release
"""

from __future__ import annotations

from common.statements.fields import (
    PROTOCOL_VERSION,
    Code,
    Hex32,
    Kind,
    LedgerIndex,
    Predicate,
    RoundNumber,
    Timestamp,
)
from common.statements.membership import (
    CertificateId,
    Genesis,
    Log,
    Member,
    PublicKey,
    Role,
    Roster,
)
from common.statements.plans import (
    Answer,
    InitialBlobs,
    PlanStatement,
    Tensor,
)
from common.statements.releases import (
    Attestation,
    Release,
    ReleasedFile,
)
from common.statements.rounds import (
    ClearWeight,
    Contribution,
    Control,
    MaskedWeight,
    PrivacySpent,
    Refusal,
    Relay,
    RoundClosed,
    RoundInputs,
    RoundOpened,
    RoundOutputs,
    SealedInput,
    Stage,
)

PREDICATES: dict[Kind, type[Predicate]] = {
    Kind.GENESIS: Genesis,
    Kind.ROSTER: Roster,
    Kind.PLAN: PlanStatement,
    Kind.ANSWER: Answer,
    Kind.ROUND_OPENED: RoundOpened,
    Kind.CONTRIBUTION: Contribution,
    Kind.REFUSAL: Refusal,
    Kind.ROUND_CLOSED: RoundClosed,
    Kind.CONTROL: Control,
    Kind.ATTESTATION: Attestation,
    Kind.RELEASE: Release,
}


def signing_institution(predicate: Predicate) -> str | None:
    """The institution that must have signed this; None where the coordinator does."""
    if isinstance(predicate, Answer | Contribution | Attestation):
        return predicate.institution
    if isinstance(predicate, Control) and predicate.action == "leave":
        return predicate.institution or ""
    return None


__all__ = [
    "PREDICATES",
    "PROTOCOL_VERSION",
    "Answer",
    "Attestation",
    "CertificateId",
    "ClearWeight",
    "Code",
    "Contribution",
    "Control",
    "Genesis",
    "Hex32",
    "InitialBlobs",
    "Kind",
    "LedgerIndex",
    "Log",
    "MaskedWeight",
    "Member",
    "PlanStatement",
    "Predicate",
    "PrivacySpent",
    "PublicKey",
    "Refusal",
    "Relay",
    "Release",
    "ReleasedFile",
    "Role",
    "Roster",
    "RoundClosed",
    "RoundInputs",
    "RoundNumber",
    "RoundOpened",
    "RoundOutputs",
    "SealedInput",
    "Stage",
    "Tensor",
    "Timestamp",
    "signing_institution",
]
