"""What all predicates are made of: kinds, times, codes, numbers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.clock import parse_rfc3339, rfc3339
from common.names import Sha256Hex

PROTOCOL_VERSION: Final = 1
"""The consortium's, from its genesis on: how statements are signed and ordered."""


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
