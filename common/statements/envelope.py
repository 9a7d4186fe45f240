"""How statements are signed, carried and read (docs/protocol.md#statements).

    predicate ──▶ in-toto Statement v1, canonical JSON = the payload ──▶ DSSE envelope, canonical JSON = what is stored and sent
                  {_type, predicateType, subject: [parent], predicate}   {payload, payloadType, signatures: [author, …]}

Bytes become facts in two steps, each with a type of its own: `parse` says what an envelope claims, `verify` that a given key
signed it. Only the second's result, a Statement, may change anything.

    statement = sign(answer, parent=Parent("plan", plan.digest), key=key)
    again = verify(parse(statement.envelope), roster_key)         # again == statement

One fact has one spelling: an envelope and its payload must each equal their canonical re-encoding. Otherwise bits that nobody
signs (unused base64 bits, spaces, key order, foreign fields) could change on the way without anyone noticing.

The first signature is the author's. Institutions that approve a roster, a plan or a release sign the very same payload, and
their signatures follow, ascending by key id (common.statements.approvals). The digest is the payload's, so approvals do not
change what a statement is called.

Signing and verifying are securesystemslib's. Source: DSSE v1.0.2; in-toto attestation framework, Statement v1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from securesystemslib import dsse
from securesystemslib.exceptions import Error as SecureSystemsLibError
from securesystemslib.signer import Signature  # type: ignore[attr-defined]  # listed in no __all__

from common import strict_json
from common.errors import BadSignature, MalformedStatement
from common.identity.keys import SigningKey, key_id, verifying_key
from common.statements.form import MAX_APPROVALS as MAX_APPROVALS
from common.statements.form import MAX_ENVELOPE_BYTES as MAX_ENVELOPE_BYTES
from common.statements.form import Content, Subject, open_envelope
from common.statements.kinds import PREDICATES, Kind, Predicate, PublicKey
from common.strict_json import JsonValue, StrictJsonError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://llmasos.org/statement/{kind}/v1"

APPROVED_KINDS = frozenset({Kind.ROSTER, Kind.PLAN, Kind.RELEASE})
"""Statements that institutions may approve; every other has its author's signature alone."""

CA_CERTIFICATE = "ca-certificate"
"""What a genesis names as its parent, as it follows from no statement."""

_KIND_OF_TYPE = {PREDICATE_TYPE.format(kind=kind): kind for kind in Kind}
_KIND_OF_MODEL = {model: kind for kind, model in PREDICATES.items()}


@dataclass(frozen=True, slots=True)
class Parent:
    """What a statement follows from: another's kind and the SHA-256 of its payload, in hexadecimal digits.

    A genesis has Parent("ca-certificate", SHA-256 of the CA certificate in DER).
    """

    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One more signature under a statement. Whose it is, and whether it holds, is not known yet."""

    keyid: str
    """SHA-256 of the raw public key, hexadecimal digits."""
    signature: bytes
    """64 bytes of Ed25519 over the payload's DSSE pre-authentication encoding."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a payload would say, once its author signed it. Made by `parse_payload`."""

    payload: bytes = field(repr=False)
    digest: str
    kind: Kind
    parent: Parent
    predicate: Predicate = field(hash=False)


@dataclass(frozen=True, slots=True)
class UnverifiedStatement:
    """What an envelope claims; whoever can send bytes can make one. Made by `parse`."""

    envelope: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    digest: str
    """SHA-256 of the payload, hexadecimal digits: the statement's name."""
    kind: Kind
    parent: Parent
    predicate: Predicate = field(hash=False)
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """What `signer_key` signed. Made only by `verify` and `sign`. Whether that key may say so is the ledger's rule."""

    envelope: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    digest: str
    """SHA-256 of the payload, hexadecimal digits: the statement's name."""
    kind: Kind
    parent: Parent
    predicate: Predicate = field(hash=False)
    signer_key: PublicKey
    approvals: tuple[Approval, ...] = ()
    """Signatures after the author's, as they came: unverified."""


def parse(envelope: bytes) -> UnverifiedStatement:
    """Read an envelope without trusting it.

    Raises:
        MalformedStatement: size, JSON, form, canonical spelling, number or order of signatures, kind or any field is wrong.
    """
    opened = open_envelope(envelope)
    draft = parse_payload(opened.payload)
    approvals = tuple(_approval(each) for each in list(opened.signatures.values())[1:])
    if approvals and draft.kind not in APPROVED_KINDS:
        raise MalformedStatement(
            f"This {draft.kind} statement has {len(approvals) + 1} signatures, expected its author's alone: only "
            f"{', '.join(sorted(APPROVED_KINDS))} are approved by others."
        )
    return UnverifiedStatement(
        envelope=envelope,
        payload=draft.payload,
        digest=draft.digest,
        kind=draft.kind,
        parent=draft.parent,
        predicate=draft.predicate,
        approvals=approvals,
    )


def parse_payload(payload: bytes) -> Draft:
    """Read what an envelope would hold, before anybody signed it.

    Raises:
        MalformedStatement: size, JSON, form, canonical spelling, kind or any field is wrong.
    """
    try:
        value = strict_json.loads(payload, max_bytes=MAX_ENVELOPE_BYTES)
        canonical = strict_json.spelled(value)
        content = strict_json.validate_spelled(Content, canonical)
    except StrictJsonError as err:
        raise MalformedStatement(f"The payload of a statement is not an in-toto Statement: {err}.") from err
    if canonical != payload:
        raise MalformedStatement("The payload of a statement is not in canonical form: sorted keys, no spaces, UTF-8.")
    kind = _KIND_OF_TYPE.get(content.predicate_type)
    if kind is None:
        raise MalformedStatement(f"predicateType is not one of {PREDICATE_TYPE.format(kind='KIND')} with a known KIND.")
    return Draft(
        payload=payload,
        digest=hashlib.sha256(payload).hexdigest(),
        kind=kind,
        parent=_parent(kind, content.subject[0]),
        predicate=_predicate(kind, content.predicate),
    )


def verify(statement: UnverifiedStatement, key: PublicKey) -> Statement:
    """The statement as a fact: `key` signed exactly these bytes, as their author. Approvals are not looked at.

    Raises:
        BadSignature: it did not; the message tells a foreign key from a wrong signature.
    """
    envelope = open_envelope(statement.envelope)
    expected, found = key_id(key), next(iter(envelope.signatures))
    if found != expected:
        raise BadSignature(
            f"This {statement.kind} statement is signed by key {found[:16]}…, expected key {expected[:16]}…."
        )
    try:
        envelope.verify([verifying_key(key)], threshold=1)  # only this key: its id decides which key the library tries
    except (SecureSystemsLibError, ValueError) as err:
        raise BadSignature(
            f"The signature of this {statement.kind} statement is not one by key {expected[:16]}…."
        ) from err
    return Statement(
        envelope=statement.envelope,
        payload=statement.payload,
        digest=statement.digest,
        kind=statement.kind,
        parent=statement.parent,
        predicate=statement.predicate,
        signer_key=key,
        approvals=statement.approvals,
    )


def sign(predicate: Predicate, *, parent: Parent, key: SigningKey) -> Statement:
    """Sign a new statement. What others would refuse to read is never signed into the world.

    Raises:
        MalformedStatement: the statement is above MAX_ENVELOPE_BYTES, or does not read back as the same predicate.
    """
    content: JsonValue = {
        "_type": STATEMENT_TYPE,
        "predicate": predicate.model_dump(mode="json"),
        "predicateType": PREDICATE_TYPE.format(kind=kind_of(predicate)),
        "subject": [{"digest": {"sha256": parent.digest}, "name": parent.kind}],
    }
    try:
        envelope = dsse.Envelope(strict_json.dumps(content), PAYLOAD_TYPE, {})
    except StrictJsonError as err:
        raise MalformedStatement(f"This {kind_of(predicate)} statement cannot be written: {err}.") from err
    envelope.sign(key.signer())
    statement = verify(parse(strict_json.dumps(envelope.to_dict())), key.public)
    if statement.predicate != predicate:
        raise MalformedStatement(f"This {statement.kind} statement reads back as another one than was to be signed.")
    return statement


def signed_under(envelope: bytes, key: SigningKey) -> bytes:
    """The same statement under this author's key: the envelope as it is where the key signed it, else a new one around its
    payload, without what others had signed.

    The digest stays, since signatures are no part of it: whoever's key changed says nothing new by this.

    Raises:
        MalformedStatement: the envelope is none.
    """
    opened = open_envelope(envelope)
    if next(iter(opened.signatures)) == key_id(key.public):
        return envelope
    return signed_payload(opened.payload, key)


def signed_payload(payload: bytes, key: SigningKey) -> bytes:
    """An envelope around a payload with one signature, this key's."""
    envelope = dsse.Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(key.signer())
    return strict_json.dumps(envelope.to_dict())


def kind_of(predicate: Predicate) -> Kind:
    """The kind of statement that `predicate` makes.

    Raises:
        TypeError: the class is part of a statement, not one.
    """
    kind = _KIND_OF_MODEL.get(type(predicate))
    if kind is None:
        raise TypeError(f"{type(predicate).__name__} is no statement's predicate")
    return kind


def _approval(signature: Signature) -> Approval:
    return Approval(signature.keyid, bytes.fromhex(signature.signature))


def _parent(kind: Kind, subject: Subject) -> Parent:
    known = subject.name == CA_CERTIFICATE if kind is Kind.GENESIS else subject.name in list(Kind)
    if not known:
        expected = CA_CERTIFICATE if kind is Kind.GENESIS else "a kind of statement"
        raise MalformedStatement(f"The subject of this {kind} statement names its parent wrongly, expected {expected}.")
    return Parent(subject.name, subject.digest.sha256)


def _predicate(kind: Kind, value: dict[str, JsonValue]) -> Predicate:
    given = strict_json.spelled(value)
    try:
        predicate = strict_json.validate_spelled(PREDICATES[kind], given)
    except StrictJsonError as err:
        raise MalformedStatement(f"The predicate of this {kind} statement does not hold: {err}.") from err
    written = predicate.model_dump(mode="json")
    if strict_json.spelled(written) == given:
        return predicate
    other = _spelled_otherwise(value, written, "predicate")
    if other:
        raise MalformedStatement(f"In this {kind} statement, {other} is not spelled in the one way that is written.")
    return predicate


def _spelled_otherwise(given: JsonValue, written: JsonValue, path: str) -> str | None:
    """Path of the first given value that this release would write differently, such as the decimals 0.10 and 1e-1.

    Fields that are absent where a default stands are right: a later release may add some, and old ledgers stay readable.
    """
    if isinstance(given, dict) and isinstance(written, dict):
        pairs = [(given[key], written.get(key), f"{path}.{key}") for key in given]
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        pairs = [(part, written[index], f"{path}.{index}") for index, part in enumerate(given)]
    else:
        return None if type(given) is type(written) and given == written else path
    return next((other for pair in pairs if (other := _spelled_otherwise(*pair))), None)
