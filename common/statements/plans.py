"""Predicates about what is to be trained: plan and answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.blobs.reference import BlobRef
from common.names import Name, Sha256Hex
from common.plan.model import Plan
from common.statements.fields import Code, Hex32, Predicate
from common.statements.versions import RunVersion, RunVersions


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
    protocol_versions: RunVersions = RunVersions()

    @model_serializer(mode="wrap")
    def _without_what_says_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Versions that are the default are left out, so that a release before there was a choice reads the statement."""
        fields: dict[str, Any] = handler(self)
        if self.protocol_versions == RunVersions():
            fields.pop("protocol_versions", None)
        return fields

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
    protocol_version: RunVersion = 1
    nonce: Hex32
    data_use_agreement: Sha256Hex | None = None
    availability: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[ -~]{1,100}$")], ...],
        Field(max_length=64, description="Windows, as common.windows writes them; empty: any time."),
    ] = ()
