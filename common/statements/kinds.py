"""What a statement of each kind says (docs/protocol.md#kinds). Pure data: no signing, no IO.

A statement is an in-toto Statement v1 whose single subject is its parent, by the SHA-256 of the parent's payload, and whose
predicate is one of the models below. The chain of parents is the protocol's replay protection: contribution → round-opened →
previous round-closed → plan → roster → genesis.

No predicate holds a float: rule inputs are integers or decimal text, so that every reader gets the same number. Fields for
what later releases add (stages, relays between institutions, masked weights, privacy, asynchronous rounds) stand here from
the start, with the one value that this release allows, because adding them later would change what old ledgers mean.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from common.blobs.reference import BlobRef, DigestName
from common.clock import parse_rfc3339, rfc3339
from common.names import Name, Sha256Hex
from common.plan.model import MAX_NUM_TOKENS, Plan

PROTOCOL_VERSION: Final = 1


def _timestamp(value: str) -> str:
    if rfc3339(parse_rfc3339(value)) != value:
        raise ValueError("expected a time as 2026-11-21T22:12:00.000Z")
    return value


Timestamp = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z$"), AfterValidator(_timestamp)]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
RoundNumber = Annotated[int, Field(ge=1, lt=2**40)]
LedgerIndex = Annotated[int, Field(ge=0, lt=2**53)]
Hex32 = Sha256Hex


class Kind(StrEnum):
    """Every kind of statement; the predicateType is `https://llmasos.org/statement/KIND/v1`."""

    GENESIS = "genesis"
    ROSTER = "roster"
    PLAN = "plan"
    ANSWER = "answer"
    ROUND_OPENED = "round-opened"
    CONTRIBUTION = "contribution"
    REFUSAL = "refusal"
    ROUND_CLOSED = "round-closed"
    CONTROL = "control"
    ATTESTATION = "attestation"
    RELEASE = "release"


class Predicate(BaseModel):
    """Base of every predicate: frozen, strict, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- genesis and roster ----------------------------------------------------------------------------------------------


class PublicKey(Predicate):
    """A public key, raw bytes as hexadecimal digits."""

    scheme: Literal["ed25519", "x25519"]
    public: Hex32


class Log(Predicate):
    """The ledger's identity for checkpoints (C2SP tlog-checkpoint)."""

    origin: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s+]+$")]
    key: PublicKey


class Genesis(Predicate):
    """Leaf 0 and trust root. The SHA-256 of its payload is *the* fingerprint; an invitation carries the envelope itself."""

    consortium: Name
    protocol_version: Literal[1] = PROTOCOL_VERSION
    created_at: Timestamp
    ca_certificate: Annotated[str, Field(max_length=8192)]
    coordinator_key: PublicKey
    log: Log
    blob_digest: DigestName = "blake3"
    approvals: Annotated[
        dict[Literal["roster", "plan", "release"], Annotated[int, Field(ge=0, le=1000)]],
        Field(description="How many institutions must approve a statement of that kind; absent is 0."),
    ] = {}


Role = Literal["trainer", "evaluator", "witness", "auditor", "operator"]


class CertificateId(Predicate):
    """One TLS certificate that may speak for a member."""

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$", description="Hexadecimal, no leading zeros.")]
    spki_sha256: Sha256Hex


class Member(Predicate):
    """An institution in the roster; also the operator, whose only role is `operator`."""

    name: Name
    signing_key: PublicKey
    encryption_key: PublicKey | None = None
    roles: tuple[Role, ...]
    certificates: Annotated[tuple[CertificateId, ...], Field(max_length=16)] = ()
    status: Literal["active", "revoked", "left"] = "active"


class Roster(Predicate):
    """The members from here on. Rotation and revocation are a new version; a key's validity is by leaf index."""

    version: Annotated[int, Field(ge=1, lt=2**40)]
    members: Annotated[tuple[Member, ...], Field(max_length=100_000)]

    @model_validator(mode="after")
    def _distinct(self) -> Roster:
        names = [member.name for member in self.members]
        if names != sorted(set(names)):
            raise ValueError("members must be in ascending order of distinct names")
        keys = [member.signing_key.public for member in self.members]
        if len(set(keys)) != len(keys):
            raise ValueError("two members hold the same signing key")
        serials = [certificate.serial for member in self.members for certificate in member.certificates]
        if len(set(serials)) != len(serials):
            raise ValueError("a certificate serial stands twice")
        return self

    def member(self, name: str) -> Member | None:
        """The member of that name, whatever its status."""
        return next((member for member in self.members if member.name == name), None)


# --- plan and answer -------------------------------------------------------------------------------------------------


class Tensor(Predicate):
    """One tensor of the manifest; the order of the manifest is the order of bytes."""

    name: Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[A-Za-z0-9_.\-]+$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**40)], ...], Field(max_length=8)]
    dtype: Literal["F32"] = "F32"
    group: Literal["trainable", "frozen", "personal"] = "trainable"

    @property
    def elements(self) -> int:
        total = 1
        for extent in self.shape:
            total *= extent
        return total


class InitialBlobs(Predicate):
    """What a run starts from."""

    model: BlobRef
    tokenizer: BlobRef


class PlanStatement(Predicate):
    """A run's plan with everything that training needs, pinned by digest. Also the draft that an operator sends."""

    run: Name
    plan: Plan
    manifest: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=20_000)]
    initial: InitialBlobs

    @model_validator(mode="after")
    def _manifest_is_ordered(self) -> PlanStatement:
        names = [tensor.name for tensor in self.manifest]
        if len(set(names)) != len(names):
            raise ValueError("a tensor name stands twice in the manifest")
        order = {"trainable": 0, "frozen": 1, "personal": 2}
        groups = [order[tensor.group] for tensor in self.manifest]
        if groups != sorted(groups):
            raise ValueError("the manifest lists trainable tensors first, then frozen, then personal")
        if groups[0] != 0:
            raise ValueError("the manifest holds no trainable tensor")
        return self


class Answer(Predicate):
    """An institution accepts or refuses a plan. Never names a person."""

    institution: Name
    run: Name
    accept: bool
    reasons: Annotated[tuple[Code, ...], Field(max_length=32)] = ()
    protocol_version: Literal[1] = PROTOCOL_VERSION
    nonce: Hex32
    data_use_agreement: Sha256Hex | None = None
    availability: Annotated[
        tuple[str, ...], Field(max_length=64, description="Windows, ISO 8601; empty: any time.")
    ] = ()


# --- rounds ----------------------------------------------------------------------------------------------------------


class Stage(Predicate):
    """A part of a round with its own deadline. This release has one, `collect`."""

    name: Literal["collect", "advertise-keys", "share-keys", "masked-input", "unmask"]
    deadline: Timestamp


class RoundInputs(Predicate):
    """What a round starts from."""

    model: BlobRef
    server_state: BlobRef | None = None


class RoundOpened(Predicate):
    """A round begins. `evaluate` measures the model and changes nothing; each run ends with one."""

    run: Name
    round: RoundNumber
    task: Literal["train", "evaluate"]
    mode: Literal["synchronous"] = "synchronous"
    inputs: RoundInputs
    cohort: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]
    roster: Sha256Hex
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=8)]


class ClearWeight(Predicate):
    """The weight, readable by all."""

    mode: Literal["clear"] = "clear"
    num_tokens: Annotated[int, Field(ge=0, le=MAX_NUM_TOKENS)]


class MaskedWeight(Predicate):
    """The weight travels inside the masked sum."""

    mode: Literal["masked"] = "masked"


class Relay(Predicate):
    """An encrypted message to another institution, by blob."""

    to: Name
    message: BlobRef


class PrivacySpent(Predicate):
    """Privacy loss of this contribution; decimal text."""

    dp_epsilon: str
    dp_delta: str


class Contribution(Predicate):
    """An institution offers its part of a round. One slot, one contribution, ever.

    `blobs` holds `delta` in a training round and nothing in an evaluation. `deviations` records what could not be done as the
    plan says (`precision-float32`: no bfloat16 here), since it makes bits differ.
    """

    institution: Name
    run: Name
    round: RoundNumber
    stage: Literal["collect"] = "collect"
    blobs: dict[Literal["delta", "control", "masked"], BlobRef]
    weight: Annotated[ClearWeight | MaskedWeight, Field(discriminator="mode")]
    metrics_commitment: Sha256Hex | None = None
    checkpoint: Annotated[str, Field(max_length=4096)] | None = None
    deviations: Annotated[tuple[Code, ...], Field(max_length=16)] = ()
    relays: Annotated[tuple[Relay, ...], Field(max_length=1024)] = ()
    privacy: PrivacySpent | None = None


class Refusal(Predicate):
    """Something was not taken, and why; at most one per institution, round and code."""

    institution: Name
    run: Name | None = None
    round: RoundNumber | None = None
    refused_sha256: Sha256Hex
    code: Code
    attribution: Literal["signed-by", "sent-on-connection"]


class SealedInput(Predicate):
    """One contribution in a closed round."""

    institution: Name
    contribution: Sha256Hex
    num_tokens: Annotated[int, Field(ge=0, le=MAX_NUM_TOKENS)]
    status: Literal["used", "late", "unused"]


class RoundOutputs(Predicate):
    """What a committed round produced. After an evaluation, the model is the round's own input."""

    model: BlobRef
    server_state: BlobRef | None = None
    applied_delta: BlobRef | None = None


class RoundClosed(Predicate):
    """A round ends: committed with outputs, or abandoned with the model unchanged."""

    run: Name
    round: RoundNumber
    outcome: Literal["committed", "abandoned"]
    reason: Code
    rule: str
    inputs: Annotated[tuple[SealedInput, ...], Field(max_length=100_000)]
    outputs: RoundOutputs

    @model_validator(mode="after")
    def _inputs_ordered(self) -> RoundClosed:
        names = [entry.institution for entry in self.inputs]
        if names != sorted(set(names)):
            raise ValueError("inputs must be in ascending order of distinct institutions")
        return self


class Control(Predicate):
    """Something else that matters to all."""

    action: Literal["pause", "resume", "extend", "abort", "roll-back", "run-ended", "leave", "recovery"]
    issued_at: Timestamp
    run: Name | None = None
    round: RoundNumber | None = None
    reason: Code
    institution: Name | None = None
    model: BlobRef | None = None
    deadline: Timestamp | None = None
    missing_from: LedgerIndex | None = None
    """Recovery: the first ledger index that nobody holds any more."""


# --- for later readers of the ledger ---------------------------------------------------------------------------------


class Attestation(Predicate):
    """An auditor recomputed a round."""

    institution: Name
    run: Name
    round: RoundNumber
    result: Literal["equal", "different"]
    model: BlobRef


class ReleasedFile(Predicate):
    """A file of a release, by the plain SHA-256 that everybody can compute."""

    path: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*$")]
    size: Annotated[int, Field(ge=0, lt=2**44)]
    sha256: Sha256Hex


class Release(Predicate):
    """A model leaves the consortium."""

    run: Name
    round: RoundNumber
    model: BlobRef
    files: Annotated[tuple[ReleasedFile, ...], Field(min_length=1, max_length=1000)]


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

INSTITUTION_KINDS = frozenset({Kind.ANSWER, Kind.CONTRIBUTION, Kind.ATTESTATION})
"""Kinds that an institution signs; a `leave` control joins them later. The coordinator signs all others."""
