"""Our envelopes, read and verified by securesystemslib alone, and by the bytes of DSSE's text."""

from __future__ import annotations

import base64
import functools
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from common.errors import MalformedStatement
from common.identity.keys import SigningKey
from common.statements.envelope import Statement, parse, verify
from tests.support.statements import Federation, a_federation


@functools.cache
def federation() -> Federation:
    return a_federation()


def statements() -> list[Statement]:
    f = federation()
    return [f.genesis, f.roster, f.plan, f.answer("north"), f.opened, f.contribution("north"), f.closed()]


def library_key(raw: str) -> SSlibKey:
    """A public key as the library takes it, named as our envelopes name it."""
    return SSlibKey(hashlib.sha256(bytes.fromhex(raw)).hexdigest(), "ed25519", "ed25519", {"public": raw})


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: str(statement.kind))
def test_an_envelope_verifies_under_its_signers_key(statement: Statement) -> None:
    envelope = Envelope.from_dict(json.loads(statement.envelope))
    key = library_key(statement.signer_key.public)
    assert envelope.verify([key], threshold=1) == {key.keyid: key}
    assert (envelope.payload, envelope.payload_type) == (statement.payload, "application/vnd.in-toto+json")


def test_an_envelope_verifies_under_no_other_key_and_around_no_other_payload() -> None:
    statement = federation().contribution("north")
    own = library_key(statement.signer_key.public)
    other = library_key(SigningKey.generate().public.public)
    with pytest.raises(VerificationError):
        Envelope.from_dict(json.loads(statement.envelope)).verify([other], threshold=1)
    for field, value in (
        ("payload", base64.b64encode(statement.payload.replace(b"north", b"south")).decode()),
        ("payloadType", "application/vnd.in-toto+xml"),
    ):
        with pytest.raises(VerificationError):
            Envelope.from_dict({**json.loads(statement.envelope), field: value}).verify([own], threshold=1)


def test_the_signed_bytes_are_the_texts_pre_authentication_encoding() -> None:
    """PAE = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body, lengths in decimal."""
    for statement in statements():
        fields = json.loads(statement.envelope)
        body = base64.b64decode(fields["payload"])
        kind = fields["payloadType"].encode()
        pae = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body])
        (signature,) = fields["signatures"]
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement.signer_key.public))
        key.verify(base64.b64decode(signature["sig"]), pae)
        assert signature["keyid"] == hashlib.sha256(key.public_bytes_raw()).hexdigest()


def test_what_the_library_signs_with_a_members_key_is_the_very_envelope() -> None:
    """Ed25519 is deterministic, so only one envelope can be around a payload and under a key."""
    statement = federation().answer("north")
    north = federation().institutions["north"]
    envelope = Envelope(statement.payload, "application/vnd.in-toto+json", {})
    envelope.sign(CryptoSigner(north.private_key, library_key(north.public.public)))
    assert json.loads(statement.envelope) == envelope.to_dict()
    spaced = json.dumps(envelope.to_dict()).encode()
    with pytest.raises(MalformedStatement, match="canonical re-encoding"):
        parse(spaced)
    canonical = json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    assert canonical == statement.envelope
    assert verify(parse(canonical), north.public) == statement
