"""The TLS handshake as gRPC's client makes it, and whose certificate it is that came in place of the coordinator's.

    check_certificate(lambda: socket.create_connection(…), "coordinator.example:7443", expected, now)

A device that inspects TLS may copy the names of the certificate that it replaces, but it signs with its own authority: so the
issuer decides. What our authorities issue has one name for its issuer, the consortium's.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from common.errors import (
    CertificateExpired,
    CoordinatorUnreachable,
    LLMasOSError,
    MalformedMessage,
    PortBlocked,
    TlsIntercepted,
    WrongFingerprint,
)
from common.identity.certificates import UNREADABLE, check_validity, common_name, coordinator_dns, load_certificate


@dataclass(frozen=True, slots=True)
class Expected:
    """Who must answer."""

    consortium: str
    ca_pem: bytes


def check_certificate(
    open_connection: Callable[[], socket.socket], address: str, expected: Expected, now: datetime
) -> None:
    """Shake hands as gRPC would; where the certificate is not the expected one, once more, to see whose it is.

    Raises:
        LLMasOSError: why it failed.
    """
    name = coordinator_dns(expected.consortium)
    context = _context(expected)
    try:
        with open_connection() as connection, context.wrap_socket(connection, server_hostname=name) as tls:
            protocol = tls.selected_alpn_protocol()
    except ssl.SSLCertVerificationError as err:
        raise _foreign(_presented(open_connection, address, name), address, expected, now) from err
    except OSError as err:
        raise _no_handshake(address, err) from err
    if protocol != "h2":
        raise CoordinatorUnreachable(
            f"{address} speaks TLS with the coordinator's certificate, but not HTTP/2, expected a gRPC server.",
            "Check the port; a load balancer in between must pass TCP through, or speak HTTP/2.",
        )


def _context(expected: Expected | None) -> ssl.SSLContext:
    """As gRPC's client is set: TLS 1.2 or newer, HTTP/2. None: whatever certificate comes is only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if expected is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=expected.ca_pem.decode("ascii"))
    return context


def _presented(open_connection: Callable[[], socket.socket], address: str, name: str) -> x509.Certificate:
    """The certificate that comes instead of the expected one."""
    context = _context(None)
    try:
        with open_connection() as connection, context.wrap_socket(connection, server_hostname=name) as tls:
            certificate = tls.getpeercert(binary_form=True) or b""
    except OSError as err:
        raise _no_handshake(address, err) from err
    try:
        return x509.load_der_x509_certificate(certificate)
    except UNREADABLE as err:
        raise TlsIntercepted(f"{address} answered TLS with a certificate that cannot be read.") from err


def _foreign(found: x509.Certificate, address: str, expected: Expected, now: datetime) -> LLMasOSError:
    """What a certificate that was not accepted means."""
    names, ours = _dns_names(found), coordinator_dns(expected.consortium)
    if _is_issued_by(found, expected.ca_pem):
        if ours in names:
            return _outside_its_time(found, now)
        return TlsIntercepted(
            f"{address} answered with a certificate of the consortium {expected.consortium!r} that is not its "
            f"coordinator's, but {_subject(found)}'s.",
            "Tell the operator and your network's owner: somebody may be posing as the coordinator.",
        )
    issuer = _issuer(found)
    if f"coordinator.{issuer}.internal" not in names:
        return TlsIntercepted(
            f"{address} answered TLS with a certificate of {_subject(found)} that was issued by {issuer!r}, expected the "
            f"authority of the consortium {expected.consortium!r}: TLS is inspected on the way, or another service "
            "listens there.",
        )
    if issuer == expected.consortium:
        return WrongFingerprint(
            f"At {address} another consortium of the name {issuer!r} answers: its certificate was issued by another "
            "authority than the genesis that this side holds names.",
            "Ask the operator whether the consortium was founded anew, and for a new invitation then; compare fingerprints.",
        )
    return WrongFingerprint(
        f"At {address} the coordinator of the consortium {issuer!r} answers, expected {expected.consortium!r}.",
        "Check the address with the operator: the port may belong to another consortium.",
    )


def _outside_its_time(found: x509.Certificate, now: datetime) -> LLMasOSError:
    pem = found.public_bytes(Encoding.PEM)
    try:
        check_validity(pem, now=now, what="The coordinator's certificate")
    except (CertificateExpired, MalformedMessage) as err:
        return CertificateExpired(
            err.message,
            "Check this machine's clock; if it is right, the operator restarts the coordinator to renew it.",
        )
    return TlsIntercepted(
        "The coordinator's certificate is one of the consortium's authority, but TLS does not accept it.",
        "Ask the operator which release the coordinator runs; TLS 1.2 or newer with P-256 keys is expected.",
    )


def _is_issued_by(found: x509.Certificate, ca_pem: bytes) -> bool:
    try:
        found.verify_directly_issued_by(load_certificate(ca_pem))
    except UNREADABLE:
        return False
    return True


def _dns_names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except UNREADABLE:
        return []
    return names.get_values_for_type(x509.DNSName) if isinstance(names, x509.SubjectAlternativeName) else []


def _subject(found: x509.Certificate) -> str:
    return repr(common_name(found) or ", ".join(_dns_names(found)) or found.subject.rfc4514_string())[:120]


def _issuer(found: x509.Certificate) -> str:
    """The issuer's name as people know it; ours have a common name alone."""
    attributes = list(found.issuer)
    if len(attributes) == 1:
        return str(attributes[0].value)[:100]
    return found.issuer.rfc4514_string()[:100]


def _no_handshake(address: str, err: OSError) -> CoordinatorUnreachable:
    if isinstance(err, ssl.SSLError) and not isinstance(err, ssl.SSLEOFError):
        reason = (err.reason or "no reason given").lower().replace("_", " ")
        return CoordinatorUnreachable(
            f"{address} accepts connections, but does not speak TLS as the coordinator does ({reason}).",
            "Check the port: another service may listen there, or a firewall answers in the coordinator's place.",
        )
    how = "no answer came in time" if isinstance(err, TimeoutError) else "the connection was cut"
    return PortBlocked(
        f"{address} accepts connections, but then {how} in the TLS handshake.",
        "A firewall that looks into connections may cut this one: ask your network's owner to allow TLS to this address "
        "and port. If the coordinator is starting or overloaded, try again.",
    )
