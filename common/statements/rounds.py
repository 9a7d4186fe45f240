"""Predicates about rounds: opened, contributed, refused, closed; and controls."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.blobs.reference import BlobRef
from common.names import Name, Sha256Hex
from common.plan.local import MAX_NUM_TOKENS
from common.statements.fields import Code, LedgerIndex, Predicate, RoundNumber, Timestamp


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
    mode: Literal["synchronous", "buffered"] = "synchronous"
    inputs: RoundInputs
    cohort: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]
    roster: Sha256Hex
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=8)]


class ClearWeight(Predicate):
    """The weight, readable by all."""

    mode: Literal["clear"] = "clear"
    num_tokens: Annotated[int, Field(ge=0, le=MAX_NUM_TOKENS)]
    num_bytes: Annotated[int | None, Field(ge=0, le=MAX_NUM_TOKENS)] = None
    """Of the text that the tokens say, where the plan weighs by bytes; elsewhere left out, and not written."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}


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
    """What a committed round produced. After an evaluation, model and server_state are the round's own inputs."""

    model: BlobRef
    server_state: BlobRef | None = None
    """What the plan's rounds hand on besides the model: the server optimizer's moments, what applied deltas dropped."""
    applied_delta: BlobRef | None = None
    """With a downlink: what was added to the round's base model, encoded."""

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """All that there are."""
        return tuple(ref for ref in (self.model, self.server_state, self.applied_delta) if ref is not None)


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
    """Something else that matters to all.

    `leave` is signed by the institution that leaves; `erased` answers it: the coordinator holds none of its deltas any more.
    `extend` names `rounds`, or the open `round` and its new `deadline`. `roll-back` names the `round` after which the run goes
    on (none: its beginning) and the `model` that this round left. `recovery` begins a new lineage: from its own index on, what
    the log signed for before counts no more.
    """

    action: Literal["pause", "resume", "extend", "abort", "roll-back", "run-ended", "leave", "erased", "recovery"]
    issued_at: Timestamp
    run: Name | None = None
    round: RoundNumber | None = None
    reason: Code
    institution: Name | None = None
    model: BlobRef | None = None
    deadline: Timestamp | None = None
    missing_from: LedgerIndex | None = None
    """Recovery: the first ledger index that nobody holds any more, which is the statement's own."""
    given_up: Annotated[str, Field(max_length=4096)] | None = None
    """Recovery: the newest checkpoint that is known of the entries which are given up, as a note of the log's."""
    rounds: RoundNumber | None = None
    """Extend: how many training rounds the run has in all from here on."""
