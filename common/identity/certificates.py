"""Names in certificates, their validity, and what an enrolment proves (docs/protocol.md#identity).

    institution   URI  spiffe://CONSORTIUM/institution/NAME     TLS client only
    coordinator   DNS  coordinator.CONSORTIUM.internal          TLS server only; clients override the target name to it

A certificate is known by serial and key: the roster names both, so neither a reissued serial nor a reused key passes alone.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from common.clock import rfc3339
from common.errors import CertificateExpired, MalformedMessage, MalformedStatement
from common.names import check_name
from common.statements.kinds import CertificateId

MAX_CERTIFICATE_BYTES = 8192
ENROL_CONTEXT = b"llmasos/v1/enrol\x00"
RENEW_CONTEXT = b"llmasos/v1/renew\x00"
UNREADABLE = (
    InvalidSignature,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""All that cryptography raises on hostile certificates and requests."""


def spiffe_id(consortium: str, name: str) -> str:
    """The URI that names an institution in its certificate.

    Raises:
        InvalidName: either part is no name.
    """
    return f"spiffe://{check_name(consortium)}/institution/{check_name(name)}"


def coordinator_dns(consortium: str) -> str:
    """The DNS name in the coordinator's certificate, whatever the address that it listens on.

    Raises:
        InvalidName: `consortium` is no name.
    """
    return f"coordinator.{check_name(consortium)}.internal"


def load_certificate(pem: bytes) -> x509.Certificate:
    """One certificate in PEM.

    Raises:
        MalformedMessage: it is too large or none.
    """
    if len(pem) > MAX_CERTIFICATE_BYTES:
        raise MalformedMessage(f"A certificate has {len(pem):,} bytes, at most {MAX_CERTIFICATE_BYTES:,} allowed.")
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE as err:
        raise MalformedMessage(f"{len(pem):,} bytes are not a certificate in PEM.") from err


def certificate_id(pem: bytes) -> CertificateId:
    """What the roster knows a certificate by.

    Raises:
        MalformedMessage: `pem` is no certificate, or its serial is not a positive number of at most 20 bytes.
    """
    certificate = load_certificate(pem)
    try:
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return CertificateId(serial=f"{certificate.serial_number:x}", spki_sha256=hashlib.sha256(spki).hexdigest())
    except (ValidationError, *UNREADABLE) as err:
        raise MalformedMessage("A certificate's serial number or public key is none that can be used here.") from err


def validity(pem: bytes, *, what: str = "This certificate") -> tuple[datetime, datetime]:
    """First and last moment of a certificate's validity, aware UTC.

    Raises:
        MalformedMessage: `pem` is no certificate, or names a time that is none.
    """
    certificate = load_certificate(pem)
    try:
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except ValueError as err:
        raise MalformedMessage(f"{what} names a time that is none.") from err


def check_validity(pem: bytes, *, now: datetime, what: str) -> None:
    """Check a certificate's time, before TLS refuses it without a word.

    Args:
        now: aware UTC, this machine's clock.
        what: the certificate in words, such as "This participant's certificate".

    Raises:
        CertificateExpired: `now` is outside its time; the message names both ends and the clock.
        MalformedMessage: `pem` is no certificate.
    """
    check_time(validity(pem, what=what), now=now, what=what)


def check_time(validity: tuple[datetime, datetime], *, now: datetime, what: str) -> None:
    """The same, of a certificate that was read before.

    Raises:
        CertificateExpired: as `check_validity`.
    """
    first, last = validity
    if first <= now <= last:
        return
    state = "is not yet valid" if now < first else "has expired"
    raise CertificateExpired(
        f"{what} {state}: valid from {rfc3339(first)} to {rfc3339(last)}, this clock says {rfc3339(now)}."
    )


def enrol_proof_message(fingerprint: bytes, invitation_id: str, csr_der: bytes, encryption_key: bytes) -> bytes:
    """The bytes that an enrolling institution signs with its signing key (enrolment.proto, EnrolRequest.proof).

    Args:
        fingerprint: SHA-256 of the genesis payload, 32 bytes: the proof is worth nothing in another consortium.
        encryption_key: X25519, 32 bytes, or empty.

    Raises:
        MalformedMessage: `fingerprint` or `encryption_key` has another length.
    """
    if len(fingerprint) != 32 or len(encryption_key) not in (0, 32):
        raise MalformedMessage(
            f"An enrolment has a fingerprint of {len(fingerprint)} and an encryption key of {len(encryption_key)} bytes, "
            "expected 32, and 32 or none."
        )
    invitation, request = hashlib.sha256(invitation_id.encode()).digest(), hashlib.sha256(csr_der).digest()
    return ENROL_CONTEXT + fingerprint + invitation + request + encryption_key


def renew_proof_message(
    fingerprint: bytes, institution: str, replaces_serial: str, csr_der: bytes, new_signing_key: bytes
) -> bytes:
    """The bytes that a member signs to renew (enrolment.proto, RenewRequest.proof).

    Args:
        fingerprint: SHA-256 of the genesis payload, 32 bytes.
        new_signing_key: Ed25519, 32 bytes, or empty where the key stays.

    Raises:
        MalformedMessage: `fingerprint` or `new_signing_key` has another length.
    """
    if len(fingerprint) != 32 or len(new_signing_key) not in (0, 32):
        raise MalformedMessage(
            f"A renewal has a fingerprint of {len(fingerprint)} and a signing key of {len(new_signing_key)} bytes, "
            "expected 32, and 32 or none."
        )
    hashed = [hashlib.sha256(part).digest() for part in (institution.encode(), replaces_serial.encode(), csr_der)]
    return RENEW_CONTEXT + fingerprint + b"".join(hashed) + new_signing_key


def check_authority(pem: str, consortium: str) -> x509.Certificate:
    """The CA certificate that a genesis carries, if it can be one.

    Exactly one certificate, spelled in one way: TLS would trust every further one in the same text.

    Raises:
        MalformedStatement: it is not one self-signed P-256 CA certificate of this consortium that may sign only end entities.
    """
    try:
        certificate = load_certificate(pem.encode())
    except MalformedMessage as err:
        raise MalformedStatement("ca_certificate in a genesis is not a certificate in PEM.") from err
    fault = _authority_fault(certificate, pem.encode(), consortium)
    if fault:
        raise MalformedStatement(f"ca_certificate in the genesis of {consortium!r} {fault}.")
    return certificate


def common_name(certificate: x509.Certificate) -> str | None:
    """The subject's only common name, if it has exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else None


def _authority_fault(certificate: x509.Certificate, pem: bytes, consortium: str) -> str | None:
    if certificate.public_bytes(Encoding.PEM) != pem:
        return "is not exactly one certificate in canonical PEM"
    try:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        public = certificate.public_key()
    except UNREADABLE:
        return "is not self-signed with constraints and key usage"
    if not (
        constraints.critical and constraints.value.ca and constraints.value.path_length == 0 and usage.key_cert_sign
    ):
        return "may not sign certificates, or may sign further authorities"
    if not (isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)):
        return "has no P-256 key"
    if common_name(certificate) != consortium:
        return "names another consortium"
    return None
