"""How both sides speak gRPC: every constant, option and credential, in one place (docs/protocol.md#transport).

    work        mutual TLS: institutions and operators, by client certificate
    enrolment   server TLS only: those who hold no certificate yet

There is no insecure mode. Clients expect the certificate of `coordinator.CONSORTIUM.internal` whatever address they dial, under
the consortium's CA and no other.

    server.add_secure_port("0.0.0.0:7443", work_server_credentials(ServerTls(key_pem, cert_pem, ca_pem)))
    channel = work_channel("10.0.0.5:7443", consortium="hospitals", ca_pem=ca, key_pem=key, cert_pem=cert)
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from common.errors import UsageError
from common.identity.certificates import coordinator_dns

MESSAGE_BYTES = 1024 * 1024
"""One piece of a chunk, where nobody said how many streams there are. A whole chunk with its framing would be above gRPC's
default limit."""
MOST_PIECE_BYTES = 2 * 1024 * 1024
_BY_STREAMS = ((4, MOST_PIECE_BYTES), (16, MESSAGE_BYTES), (32, MESSAGE_BYTES // 2))
LEAST_PIECE_BYTES = MESSAGE_BYTES // 4
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
WINDOW_BYTES = 1024 * 1024
"""What a sender may have on the way on one connection, however many streams it has, and what a receiver may have to hold
of each stream. Enough where the round-trip time is short; common/wire/streams.py says how much more a long way takes."""
STREAMS_PER_CONNECTION = 64
KEEPALIVE_SECONDS = 30
"""From here both ends derive when they ping and which pings they bear; set apart, a server answers GOAWAY too_many_pings."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})\Z")

Options = list[tuple[str, int | str]]


def server_options(window_bytes: int = WINDOW_BYTES) -> Options:
    """For `grpc.server`, on either listener; `window_bytes` as WINDOW_BYTES."""
    return [
        *_common_options(window_bytes),
        # A server strikes out who pings faster than this; half the clients' period leaves room for jitter.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1000 // 2),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.so_reuseport", 0),  # otherwise a second coordinator on the same port would silently take half the calls
    ]


def channel_options(
    address: str, *, authority: str, window_bytes: int = WINDOW_BYTES, own_connection: bool = False
) -> Options:
    """For a secure channel to `address`, whose certificate must name `authority`.

    Args:
        window_bytes: as WINDOW_BYTES, of what comes in.
        own_connection: share no TCP connection with channels of the same address and credentials.

    Raises:
        UsageError: `address` is not host:port.
    """
    host, _ = split_address(address)
    return [
        *_common_options(window_bytes),
        ("grpc.use_local_subchannel_pool", int(own_connection)),
        ("grpc.ssl_target_name_override", authority),
        ("grpc.enable_http_proxy", 0 if is_loopback(host) else 1),
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", KEEPALIVE_SECONDS * 1000 // 2),
    ]


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate and key, and the CA whose clients it takes; PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    ca_pem: bytes

    def current(self) -> ServerTls:
        """Itself: a certificate that does not change is a source of certificates, too."""
        return self


def piece_bytes(streams: int) -> int:
    """How large pieces of chunks are while a coordinator serves so many streams: a large one costs both sides less time a byte,
    and the coordinator about five times its size for each stream."""
    return next((size for most, size in _BY_STREAMS if streams <= most), LEAST_PIECE_BYTES)


class TlsSource(Protocol):
    """Says at each handshake what to serve it with; any thread, quick, never raises."""

    def current(self) -> ServerTls: ...


def work_server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """The work listener's: a client without a certificate of this CA does not get as far as a call."""
    served = ServedTls(source, lambda tls: _configuration(tls, tls.ca_pem))
    return grpc.dynamic_ssl_server_credentials(served.first, served.changed, require_client_authentication=True)


def enrolment_server_credentials(source: TlsSource) -> grpc.ServerCredentials:
    """The enrolment listener's: no client certificate is asked for."""
    served = ServedTls(source, lambda tls: _configuration(tls, None))
    return grpc.dynamic_ssl_server_credentials(served.first, served.changed)


def _configuration(tls: ServerTls, ca_pem: bytes | None) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key_pem, tls.certificate_pem)], ca_pem)


class ServedTls:
    """What a listener serves; gRPC asks at each handshake, from any thread, and is answered only where something changed.

    An answer makes gRPC replace what handshakes in progress use: answering each of them, a server fell (SIGSEGV, gRPC 1.81 and
    1.85) when some hundred connections came at once.
    """

    def __init__(self, source: TlsSource, made: Callable[[ServerTls], grpc.ServerCertificateConfiguration]) -> None:
        """
        Args:
            made: gRPC's form of it.
        """
        self._source, self._made = source, made
        self._lock = threading.Lock()
        self._served = source.current()
        self.first = made(self._served)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to serve from now on; None: as before."""
        tls = self._source.current()
        with self._lock:
            if tls == self._served:
                return None
            self._served = tls
        return self._made(tls)


def work_channel(
    address: str,
    *,
    consortium: str,
    ca_pem: bytes,
    key_pem: bytes,
    cert_pem: bytes,
    window_bytes: int = WINDOW_BYTES,
    own_connection: bool = False,
) -> grpc.Channel:
    """A channel to the work listener; the caller closes it.

    Args:
        window_bytes, own_connection: as `channel_options`.

    Raises:
        UsageError: `address` is not host:port.
        InvalidName: `consortium` is no name.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca_pem, private_key=key_pem, certificate_chain=cert_pem
    )
    options = channel_options(
        address, authority=coordinator_dns(consortium), window_bytes=window_bytes, own_connection=own_connection
    )
    return grpc.secure_channel(address, credentials, options)


def enrolment_channel(address: str, *, consortium: str, ca_pem: bytes) -> grpc.Channel:
    """A channel to the enrolment listener; the caller closes it.

    Raises:
        UsageError, InvalidName: as `work_channel`.
    """
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
    return grpc.secure_channel(address, credentials, channel_options(address, authority=coordinator_dns(consortium)))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "host:port", "192.0.2.1:port" or "[2001:db8::1]:port"; brackets are taken off, port 0 is allowed.

    Raises:
        UsageError: `address` has another form. Schemes of gRPC's resolvers are refused too.
    """
    host, colon, digits = address.rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 5 else -1
    bare = _bare_host(host)
    if not colon or bare is None or not 0 <= port <= 65535:
        raise UsageError(
            f"{address[:80]!r} is not an address, expected host:port.",
            "Write a name or IP address, a colon and a port from 0 to 65535, such as 127.0.0.1:7443 or [::1]:7443.",
        )
    return bare, port


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its name or address alone; no proxy is used for it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _common_options(window_bytes: int) -> Options:
    """What must be equal on both ends, or bounds what a peer can make this side hold."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.http2.bdp_probe", 0),  # the probe grows the window, and with it memory, as far as the link is fast
        ("grpc.http2.lookahead_bytes", window_bytes),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_SECONDS * 1000 // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a long poll sends no data for as long as nothing happens
    ]


def _bare_host(host: str) -> str | None:
    """The host without brackets, or None when it is none."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return host if _HOST.match(host) else None
