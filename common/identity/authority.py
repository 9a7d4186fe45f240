"""The consortium's certificate authority: takes a public key, writes every name itself (docs/protocol.md#identity).

    authority = Authority.create("hospitals", now=clock.now())
    pem = authority.issue_institution(key.csr("north"), "north", now=clock.now(), days=90)

Certificates begin a day back, so that a clock that is slow by hours still accepts them, and end with the authority at the
latest.
An institution's certificate opens connections only, the coordinator's accepts them only: neither can play the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from common.clock import rfc3339
from common.errors import CertificateExpired, MalformedMessage, MalformedStatement, NotInitialised, StorageFailure
from common.homes import atomic_write
from common.identity.certificates import (
    UNREADABLE,
    check_authority,
    common_name,
    coordinator_dns,
    load_certificate,
    spiffe_id,
)
from common.identity.keys import TlsKey
from common.names import check_name

KEY_FILE = "ca.key.pem"
CERTIFICATE_FILE = "ca.pem"
MAX_CSR_BYTES = 4096
_BACKDATED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """What the authority writes into a certificate."""

    common_name: str
    alternative_name: x509.GeneralName
    purpose: ObjectIdentifier
    serial: int


class Authority:
    """A consortium's CA with its private key. Only the coordinator's home holds one."""

    def __init__(self, consortium: str, key: TlsKey, certificate: x509.Certificate) -> None:
        self.consortium = consortium
        self._key = key
        self._certificate = certificate

    def __repr__(self) -> str:
        return f"Authority({self.consortium!r}, serial={self._certificate.serial_number:x})"

    @classmethod
    def create(cls, consortium: str, *, now: datetime, ca_days: int = 3650) -> Self:
        """A new authority with a key of its own.

        Raises:
            InvalidName: `consortium` is no name.
        """
        key, name = TlsKey.generate(), _subject(check_name(consortium))
        public = key.private_key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_seconds(now) - _BACKDATED)
            .not_valid_after(_seconds(now) + timedelta(days=ca_days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key.private_key, hashes.SHA256())
        )
        return cls(consortium, key, certificate)

    @classmethod
    def load(cls, folder: Path, passphrase: bytes | None = None) -> Self:
        """The authority that `save` wrote.

        Raises:
            NotInitialised: a file is not there.
            WrongPassphrase: the key is encrypted under another one.
            StorageFailure: the files cannot be read or do not belong together.
        """
        key, path = TlsKey.load(folder / KEY_FILE, passphrase), folder / CERTIFICATE_FILE
        try:
            certificate = load_certificate(path.read_bytes())
            consortium = common_name(certificate) or ""
            check_authority(path.read_text(encoding="ascii"), consortium)
        except FileNotFoundError as err:
            raise NotInitialised(f"The authority's certificate {path} does not exist.") from err
        except (OSError, ValueError, MalformedMessage, MalformedStatement) as err:
            raise StorageFailure(f"{path} is not the certificate of an authority: {err}.") from err
        if certificate.public_key() != key.private_key.public_key():
            raise StorageFailure(f"{path} is not the certificate of the key in {folder / KEY_FILE}.")
        return cls(consortium, key, certificate)

    def save(self, folder: Path, passphrase: bytes | None = None) -> None:
        """Write key and certificate into an existing folder.

        Raises:
            AlreadyInitialised: the folder holds a key already.
            StorageFailure: the disk says no.
        """
        self._key.save(folder / KEY_FILE, passphrase)
        atomic_write(folder / CERTIFICATE_FILE, self.certificate_pem)

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_der(self) -> bytes:
        return self._certificate.public_bytes(Encoding.DER)

    def issue_institution(
        self, csr_der: bytes, name: str, *, now: datetime, days: int, serial: int | None = None
    ) -> bytes:
        """An institution's client certificate, PEM. From the request only the public key is taken.

        Raises:
            InvalidName: `name` is no name.
            MalformedMessage: the request is none, not signed by its key, or its key is not P-256.
            CertificateExpired: the authority itself is outside its time.
        """
        uri = x509.UniformResourceIdentifier(spiffe_id(self.consortium, name))
        number = x509.random_serial_number() if serial is None else serial
        return self._issue(csr_der, _Leaf(name, uri, ExtendedKeyUsageOID.CLIENT_AUTH, number), now=now, days=days)

    def issue_coordinator(self, csr_der: bytes, *, now: datetime, days: int) -> bytes:
        """The coordinator's server certificate, PEM; for all listeners.

        Raises:
            MalformedMessage, CertificateExpired: as `issue_institution`.
        """
        dns = x509.DNSName(coordinator_dns(self.consortium))
        leaf = _Leaf("coordinator", dns, ExtendedKeyUsageOID.SERVER_AUTH, x509.random_serial_number())
        return self._issue(csr_der, leaf, now=now, days=days)

    def _issue(self, csr_der: bytes, leaf: _Leaf, *, now: datetime, days: int) -> bytes:
        public, authority = _requested_key(csr_der), self._key.private_key.public_key()
        last = self._certificate.not_valid_after_utc
        if not self._certificate.not_valid_before_utc <= now < last:
            raise CertificateExpired(
                f"The authority of {self.consortium!r} is valid until {rfc3339(last)}, now {rfc3339(now)}."
            )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(leaf.common_name))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(leaf.serial)
            .not_valid_before(_seconds(now) - _BACKDATED)
            .not_valid_after(min(_seconds(now) + timedelta(days=days), last))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([leaf.purpose]), critical=True)
            .add_extension(x509.SubjectAlternativeName([leaf.alternative_name]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
            .sign(self._key.private_key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)


def requested_spki_sha256(csr_der: bytes) -> str:
    """SHA-256 of the public key that a request asks a certificate for, as a roster names it; hexadecimal digits.

    Raises:
        MalformedMessage: as `Authority.issue_institution`.
    """
    spki = _requested_key(csr_der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _requested_key(csr_der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose holder has proved to hold its private half."""
    if len(csr_der) > MAX_CSR_BYTES:
        raise MalformedMessage(f"csr_der has {len(csr_der):,} bytes, at most {MAX_CSR_BYTES:,} allowed.")
    try:
        request = x509.load_der_x509_csr(csr_der)
        public, signed = request.public_key(), request.is_signature_valid
    except UNREADABLE as err:
        raise MalformedMessage("csr_der is not a PKCS #10 request in DER.") from err
    if not signed:
        raise MalformedMessage("csr_der is not signed by the key that it holds.")
    if not (isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)):
        raise MalformedMessage("csr_der holds a key of another kind, expected P-256.")
    return public


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
