from __future__ import annotations

import base64
import functools
import hashlib
import textwrap
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from common.clock import ManualClock
from common.errors import (
    AlreadyInitialised,
    CertificateExpired,
    InvalidName,
    MalformedMessage,
    MalformedStatement,
    NotInitialised,
    StorageFailure,
)
from common.identity.authority import Authority
from common.identity.certificates import (
    certificate_id,
    check_authority,
    check_validity,
    coordinator_dns,
    enrol_proof_message,
    spiffe_id,
)
from common.identity.keys import TlsKey

NOW = ManualClock().now()
DAY = timedelta(days=1)
E = TypeVar("E", bound=x509.ExtensionType)


@functools.cache
def authority() -> Authority:
    return Authority.create("hospitals", now=NOW)


@functools.cache
def tls_key() -> TlsKey:
    return TlsKey.generate()


@functools.cache
def request_der() -> bytes:
    return tls_key().csr("north")


def issued(name: str = "north", *, now: datetime = NOW, days: int = 90) -> bytes:
    return authority().issue_institution(tls_key().csr(name), name, now=now, days=days)


def extension(certificate: x509.Certificate, kind: type[E]) -> E:
    return certificate.extensions.get_extension_for_class(kind).value


def test_an_institutions_certificate_says_who_and_only_client() -> None:
    certificate = x509.load_pem_x509_certificate(issued())
    names = extension(certificate, x509.SubjectAlternativeName)
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://hospitals/institution/north")]
    assert extension(certificate, x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert extension(certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    usage = extension(certificate, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_cert_sign, usage.key_agreement) == (True, False, False)
    assert certificate.subject.rfc4514_string() == "CN=north"
    assert certificate.not_valid_before_utc == NOW - DAY
    assert certificate.not_valid_after_utc == NOW + 90 * DAY
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority().certificate_pem))


def test_the_coordinators_certificate_says_where_and_only_server() -> None:
    pem = authority().issue_coordinator(tls_key().csr("whatever"), now=NOW, days=90)
    certificate = x509.load_pem_x509_certificate(pem)
    names = extension(certificate, x509.SubjectAlternativeName)
    assert list(names) == [x509.DNSName("coordinator.hospitals.internal")]
    assert extension(certificate, x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])


def test_nothing_but_the_key_is_taken_from_a_request() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "south")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("coordinator.hospitals.internal")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = authority().issue_institution(greedy.public_bytes(Encoding.DER), "north", now=NOW, days=1)
    certificate = x509.load_pem_x509_certificate(pem)
    assert "south" not in certificate.subject.rfc4514_string()
    assert len(list(extension(certificate, x509.SubjectAlternativeName))) == 1
    assert not extension(certificate, x509.BasicConstraints).ca
    assert certificate.public_key() == key.public_key()


def test_serials_are_random_or_given() -> None:
    assert certificate_id(issued()).serial != certificate_id(issued()).serial
    pem = authority().issue_institution(tls_key().csr("north"), "north", now=NOW, days=1, serial=0xABC)
    assert certificate_id(pem).serial == "abc"


def test_a_certificate_is_known_by_serial_and_key() -> None:
    pem = issued()
    certificate, known = x509.load_pem_x509_certificate(pem), certificate_id(pem)
    spki = tls_key().private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert int(known.serial, 16) == certificate.serial_number
    assert known.spki_sha256 == hashlib.sha256(spki).hexdigest()


def test_no_certificate_outlives_its_authority() -> None:
    certificate = x509.load_pem_x509_certificate(issued(days=36500))
    assert certificate.not_valid_after_utc == NOW + 3650 * DAY
    with pytest.raises(CertificateExpired, match=r"The authority of 'hospitals' is valid until 2035"):
        issued(now=NOW + 3651 * DAY)


def ed25519_request() -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)


def unsigned_request() -> bytes:
    whole = bytearray(TlsKey.generate().csr("north"))
    whole[whole.index(b"north")] ^= 1
    return bytes(whole)


BAD_REQUESTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "none": (lambda: b"", "is not a PKCS #10 request"),
    "a certificate": (lambda: authority().certificate_der, "is not a PKCS #10 request"),
    "another kind of key": (ed25519_request, "holds a key of another kind, expected P-256"),
    "a broken signature": (unsigned_request, "is not signed by the key that it holds"),
    "too large": (lambda: bytes(5000), "5,000 bytes, at most 4,096"),
}


@pytest.mark.parametrize(("request_der", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_gets_no_certificate(request_der: Callable[[], bytes], message: str) -> None:
    with pytest.raises(MalformedMessage, match=message):
        authority().issue_institution(request_der(), "north", now=NOW, days=1)


@pytest.mark.parametrize("name", ["", "North", "../x", "a/b", "é", "a" * 64, "north\n", "a.b"])
def test_a_name_that_is_none_is_never_certified(name: str) -> None:
    with pytest.raises(InvalidName):
        authority().issue_institution(tls_key().csr("x"), name, now=NOW, days=1)
    with pytest.raises(InvalidName):
        Authority.create(name, now=NOW)
    with pytest.raises(InvalidName):
        spiffe_id("hospitals", name)
    with pytest.raises(InvalidName):
        coordinator_dns(name)


def pem_of(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_changed_certificates_and_requests_are_refused_in_our_own_words(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from([authority().certificate_der, request_der()])))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, 600)) % len(whole)] = data.draw(st.integers(0, 255))
    for attempt in (
        lambda: certificate_id(pem_of(bytes(whole))),
        lambda: check_validity(pem_of(bytes(whole)), now=NOW, what="It"),
        lambda: check_authority(pem_of(bytes(whole)).decode(), "hospitals"),
        lambda: authority().issue_institution(bytes(whole), "north", now=NOW, days=1),
    ):
        try:
            attempt()
        except (MalformedMessage, MalformedStatement, CertificateExpired):
            continue


def test_validity_names_both_ends_and_the_clock() -> None:
    pem = issued(days=10)
    check_validity(pem, now=NOW, what="This certificate")
    with pytest.raises(CertificateExpired) as late:
        check_validity(pem, now=NOW + 11 * DAY, what="This certificate")
    assert late.value.message == (
        "This certificate has expired: valid from 2025-12-31T00:00:00.000Z to 2026-01-11T00:00:00.000Z, "
        "this clock says 2026-01-12T00:00:00.000Z."
    )
    with pytest.raises(CertificateExpired, match="This certificate is not yet valid"):
        check_validity(pem, now=NOW - 2 * DAY, what="This certificate")


def test_what_is_no_certificate_is_told() -> None:
    with pytest.raises(MalformedMessage, match="7 bytes are not a certificate in PEM"):
        certificate_id(b"nothing")
    with pytest.raises(MalformedMessage, match="9,000 bytes, at most 8,192"):
        certificate_id(bytes(9000))


def test_the_enrolment_proof_covers_everything_that_is_sent() -> None:
    fingerprint, encryption = bytes(range(32)), bytes(32)
    message = enrol_proof_message(fingerprint, "invitation-1", b"csr", encryption)
    assert message == (
        b"llmasos/v1/enrol\x00"
        + fingerprint
        + hashlib.sha256(b"invitation-1").digest()
        + hashlib.sha256(b"csr").digest()
        + encryption
    )
    assert enrol_proof_message(fingerprint, "invitation-1", b"csr", b"") == message[:-32]
    for wrong in [(b"", encryption), (fingerprint, b"short")]:
        with pytest.raises(MalformedMessage, match="expected 32, and 32 or none"):
            enrol_proof_message(wrong[0], "invitation-1", b"csr", wrong[1])


def test_an_authority_comes_back_from_its_folder(tmp_path: Path) -> None:
    authority().save(tmp_path)
    again = Authority.load(tmp_path)
    assert (again.consortium, again.certificate_pem) == ("hospitals", authority().certificate_pem)
    certificate = x509.load_pem_x509_certificate(again.issue_institution(tls_key().csr("a"), "a", now=NOW, days=1))
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority().certificate_pem))
    assert "PRIVATE" not in repr(again)
    with pytest.raises(AlreadyInitialised):
        authority().save(tmp_path)


def test_an_authoritys_files_must_belong_together(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"ca\.key\.pem does not exist"):
        Authority.load(tmp_path)
    authority().save(tmp_path)
    (tmp_path / "ca.pem").write_bytes(Authority.create("hospitals", now=NOW).certificate_pem)
    with pytest.raises(StorageFailure, match=r"ca\.pem is not the certificate of the key in"):
        Authority.load(tmp_path)
    (tmp_path / "ca.pem").write_bytes(issued())
    with pytest.raises(StorageFailure, match=r"ca\.pem is not the certificate of an authority"):
        Authority.load(tmp_path)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(NotInitialised, match=r"ca\.pem does not exist"):
        Authority.load(tmp_path)


def a_ca(key: ec.EllipticCurvePrivateKey, *, path_length: int | None = 0, ca: bool = True) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospitals")])
    usage = {"key_cert_sign": True, "crl_sign": True, "digital_signature": False, "content_commitment": False}
    other = dict.fromkeys(
        ("key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    builder = builder.add_extension(x509.KeyUsage(**usage, **other), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


P256 = ec.generate_private_key(ec.SECP256R1())
BAD_AUTHORITIES: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (lambda: "nothing", "is not a certificate in PEM"),
    "two certificates": (
        lambda: authority().certificate_pem.decode() + Authority.create("hospitals", now=NOW).certificate_pem.decode(),
        "is not exactly one certificate in canonical PEM",
    ),
    "words around it": (lambda: "hello\n" + authority().certificate_pem.decode(), "is not exactly one certificate"),
    "an institution's": (lambda: issued().decode(), "is not self-signed"),
    "another consortium's": (
        lambda: str(Authority.create("banks", now=NOW).certificate_pem, "ascii"),
        "names another consortium",
    ),
    "one above authorities": (lambda: a_ca(P256, path_length=1), "may sign further authorities"),
    "one without bound": (lambda: a_ca(P256, path_length=None), "may sign further authorities"),
    "none at all": (lambda: a_ca(P256, path_length=None, ca=False), "may not sign certificates"),
    "another curve": (lambda: a_ca(ec.generate_private_key(ec.SECP384R1())), "has no P-256 key"),
}


@pytest.mark.parametrize(("pem", "message"), BAD_AUTHORITIES.values(), ids=BAD_AUTHORITIES.keys())
def test_a_trust_root_is_refused_that_is(pem: Callable[[], str], message: str) -> None:
    with pytest.raises(MalformedStatement, match=message):
        check_authority(pem(), "hospitals")


def test_an_authority_of_ours_can_be_a_trust_root() -> None:
    certificate = check_authority(authority().certificate_pem.decode(), "hospitals")
    assert certificate.public_bytes(Encoding.DER) == authority().certificate_der
    assert check_authority(a_ca(P256), "hospitals") is not None
