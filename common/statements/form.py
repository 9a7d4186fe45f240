"""The form of envelopes and payloads, before anything of them is believed: bounded, canonical, nothing foreign in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from securesystemslib import dsse

from common import strict_json
from common.errors import MalformedStatement
from common.names import Sha256Hex
from common.strict_json import StrictJsonError

MAX_ENVELOPE_BYTES = 1024 * 1024
MAX_APPROVALS = 1000


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Signature(_Form):
    keyid: Sha256Hex
    sig: Annotated[str, Field(min_length=88, max_length=88, description="Ed25519: 64 bytes in base64.")]


class _Envelope(_Form):
    payload: str
    payload_type: Annotated[Literal["application/vnd.in-toto+json"], Field(alias="payloadType")]
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=1 + MAX_APPROVALS)]


class _Digest(_Form):
    sha256: Sha256Hex


class Subject(_Form):
    """What a statement follows from."""

    name: Annotated[str, Field(max_length=64)]
    digest: _Digest


class Content(_Form):
    """A payload: an in-toto Statement v1 with one subject."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Annotated[str, Field(alias="predicateType")]
    predicate: dict[str, Any]


def open_envelope(envelope: bytes) -> dsse.Envelope:
    """The library's envelope, once its bytes are bounded, of the right form and canonical."""
    try:
        value = strict_json.loads(envelope, max_bytes=MAX_ENVELOPE_BYTES, max_depth=4)
        form = strict_json.validate_spelled(_Envelope, strict_json.spelled(value))
        _check_order([each.keyid for each in form.signatures])
        opened = dsse.Envelope.from_dict(value)  # type: ignore[arg-type]  # an object, as _Envelope says
        canonical = strict_json.spelled(opened.to_dict())
    except StrictJsonError as err:
        raise MalformedStatement(f"An envelope is not a DSSE envelope with Ed25519 signatures: {err}.") from err
    except ValueError as err:
        raise MalformedStatement("An envelope's payload or signature is not base64.") from err
    if canonical != envelope:
        raise MalformedStatement("An envelope differs from its canonical re-encoding.")
    return opened


def _check_order(keyids: list[str]) -> None:
    """
    Raises:
        MalformedStatement: a key signs twice, or approvals stand in another order than the one that is written.
    """
    if len(set(keyids)) != len(keyids):
        raise MalformedStatement("In an envelope one key signs twice; each signs once.")
    if keyids[1:] != sorted(keyids[1:]):
        raise MalformedStatement("In an envelope the approvals after the author's signature do not ascend by key id.")
