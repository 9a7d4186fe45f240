"""Predicates about who belongs to a consortium: genesis and roster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.blobs.reference import DigestName
from common.names import Name, Sha256Hex
from common.statements.fields import PROTOCOL_VERSION, Hex32, Predicate, Timestamp


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
    approvals: dict[Literal["roster", "plan", "release"], Annotated[int, Field(ge=0, le=1000)]] = Field(
        default_factory=dict, description="How many institutions must approve a statement of that kind; absent is 0."
    )


Role = Literal["trainer", "evaluator", "witness", "auditor", "viewer", "operator"]


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

    @model_validator(mode="after")
    def _keys_fit_their_use(self) -> Member:
        if self.signing_key.scheme != "ed25519":
            raise ValueError("a signing key is of scheme ed25519")
        if self.encryption_key is not None and self.encryption_key.scheme != "x25519":
            raise ValueError("an encryption key is of scheme x25519")
        return self


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
