"""TLS of the bulk listener: version 1.3, the consortium's CA alone, certificates on both sides, as on the work listener.

Who calls is read from the certificate by the same rules (coordinator.api.doors). The protocol's name travels as ALPN, so that a
port that speaks something else is found out in the handshake.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from common.wire.channel import ServerTls

ALPN = "llmasos-bulk/1"


def client_context(*, ca_pem: bytes, key_pem: bytes, cert_pem: bytes) -> ssl.SSLContext:
    """For the calling end; wrap with `server_hostname=coordinator_dns(consortium)`, whatever address was dialled."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, ca_pem, key_pem, cert_pem)


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """For the listening end: who has no certificate of this CA gets no further than the handshake."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls.ca_pem, tls.key_pem, tls.certificate_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would be judged by the certificate of then
    return context


def _context(protocol: int, ca_pem: bytes, key_pem: bytes, cert_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    _load(context, key_pem, cert_pem)
    return context


def _load(context: ssl.SSLContext, key_pem: bytes, cert_pem: bytes) -> None:
    """Python's ssl reads keys from files only: for a moment it lies there, under a password that only this call knows."""
    password = secrets.token_bytes(32).hex().encode()
    key = serialization.load_pem_private_key(key_pem, None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    with tempfile.TemporaryDirectory(prefix="llmasos-tls-") as folder:
        file = Path(folder, "pair.pem")
        file.touch(mode=0o600)
        file.write_bytes(cert_pem + sealed)
        context.load_cert_chain(file, password=password)
