"""The invitation: what an operator hands to an institution, and all it needs to join.

It carries the genesis itself, so the institution checks whom it talks to before it sends the secret, and the secret, which the
coordinator keeps only as a hash. It is text that survives mail and chat: a checksum tells a torn copy from a wrong one.

    -----BEGIN LLMASOS INVITATION-----
    eyJlbnJvbG1lbnRfYWRkcmVzcyI6ImNvb3JkaW5hdG9yLmV4YW1wbGU6NzQ0NCIs…
    =3f0a9c1b52d47e86
    -----END LLMASOS INVITATION-----
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import textwrap
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field

from common import strict_json
from common.errors import InvalidInvitation, MalformedStatement, WrongParent
from common.identity.certificates import check_authority
from common.names import Name, Sha256Hex
from common.statements.envelope import CA_CERTIFICATE, MAX_ENVELOPE_BYTES, Parent, Statement, parse, verify
from common.statements.kinds import Genesis, Timestamp
from common.strict_json import JsonValue

BEGIN = "-----BEGIN LLMASOS INVITATION-----"
END = "-----END LLMASOS INVITATION-----"
SECRET_BYTES = 32
MAX_INVITATION_BYTES = 2 * MAX_ENVELOPE_BYTES
_COLUMNS = 64
_CHECKSUM_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Invitation:
    """An open door for one institution, until `expires_at`."""

    institution: str
    invitation_id: str
    secret: bytes = field(repr=False)
    """32 bytes. Whoever has it can join in the institution's name."""
    enrolment_address: str
    work_address: str
    expires_at: str
    """RFC 3339 UTC with milliseconds, by the coordinator's clock."""
    genesis: bytes = field(repr=False)
    """The envelope."""

    def armoured(self) -> str:
        """The invitation as text. Holds the secret.

        Raises:
            StrictJsonError: a field is not as an invitation's must be.
        """
        content: JsonValue = {
            "invitation": 1,
            "institution": self.institution,
            "invitation_id": self.invitation_id,
            "secret": self.secret.hex(),
            "enrolment_address": self.enrolment_address,
            "work_address": self.work_address,
            "expires_at": self.expires_at,
            "genesis": base64.b64encode(self.genesis).decode(),
        }
        strict_json.validate(_Content, content)
        body = strict_json.dumps(content)
        lines = textwrap.wrap(base64.b64encode(body).decode(), _COLUMNS)
        return "\n".join([BEGIN, *lines, f"={_checksum(body)}", END, ""])


def parse_invitation(text: str) -> Invitation:
    """The invitation in `text`, which may be quoted, indented or surrounded by other words.

    Raises:
        InvalidInvitation: there is none, a part is missing, or something was changed.
    """
    body = _body(text)
    try:
        content = strict_json.validate(_Content, strict_json.loads(body, max_bytes=MAX_INVITATION_BYTES, max_depth=2))
        genesis = base64.b64decode(content.genesis, validate=True)
    except ValueError as err:  # of JSON, of base64, and of text that is not ASCII where base64 should be
        raise InvalidInvitation(
            f"The invitation is whole but not one that this release reads: {err}.",
            "Install the release that the consortium uses, or ask the operator for a new invitation.",
        ) from err
    return Invitation(
        institution=content.institution,
        invitation_id=content.invitation_id,
        secret=bytes.fromhex(content.secret),
        enrolment_address=content.enrolment_address,
        work_address=content.work_address,
        expires_at=content.expires_at,
        genesis=genesis,
    )


def secret_hash(secret: bytes) -> str:
    """SHA-256 in hexadecimal digits: all that a coordinator keeps. The secret has 256 random bits, so no salt is needed."""
    return hashlib.sha256(secret).hexdigest()


def open_genesis(envelope: bytes) -> tuple[Statement, Genesis]:
    """The trust root that `envelope` holds, consistent in itself; its digest is *the* fingerprint.

    Whether it is the consortium that somebody means to trust is decided by the fingerprint alone, never here.

    Raises:
        MalformedStatement: no genesis, or its CA certificate cannot be one.
        BadSignature: not signed by the coordinator key that it names.
        WrongParent: its parent is not its own CA certificate.
    """
    unverified = parse(envelope)
    genesis = unverified.predicate
    if not isinstance(genesis, Genesis):
        raise MalformedStatement(f"This {unverified.kind} statement stands where a genesis was expected.")
    certificate = check_authority(genesis.ca_certificate, genesis.consortium)
    if genesis.coordinator_key.scheme != "ed25519" or genesis.log.key.scheme != "ed25519":
        raise MalformedStatement(
            f"The genesis of {genesis.consortium!r} names a key that cannot sign, expected ed25519."
        )
    statement = verify(unverified, genesis.coordinator_key)
    if statement.parent != Parent(CA_CERTIFICATE, hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()):
        raise WrongParent(
            f"The genesis of {genesis.consortium!r} names another CA certificate as its parent than it holds."
        )
    return statement, genesis


Address = Annotated[str, Field(min_length=3, max_length=300, pattern=r"^\S+:[0-9]{1,5}$")]


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    invitation: Literal[1]
    institution: Name
    invitation_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    secret: Annotated[Sha256Hex, Field(repr=False)]
    enrolment_address: Address
    work_address: Address
    expires_at: Timestamp
    genesis: Annotated[str, Field(repr=False)]


def _body(text: str) -> bytes:
    """The bytes between the first and last line, once their checksum says that they are all there."""
    if len(text) > MAX_INVITATION_BYTES or BEGIN not in text:
        raise InvalidInvitation(f"{len(text):,} characters hold no line {BEGIN!r}.")
    inner, end, _ = text.partition(BEGIN)[2].partition(END)
    if not end:
        raise InvalidInvitation(f"The invitation is cut off: its last line {END!r} is missing.")
    lines = [line.strip(" \t\r>") for line in inner.splitlines()]
    encoded, mark, checksum = "".join(lines).rpartition("=")
    try:
        body = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as err:
        raise InvalidInvitation("The invitation was changed on its way: its lines are not base64.") from err
    if not mark or checksum != _checksum(body):
        raise InvalidInvitation("The invitation was changed or shortened on its way: its checksum does not match.")
    return body


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_CHECKSUM_DIGITS]
