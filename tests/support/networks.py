"""What stands between an institution and its coordinator, on loopback: proxies, devices that inspect TLS, dead ends.

    with FakeProxy(credentials="it:p@ss", names={"coordinator.example": "127.0.0.1"}) as proxy:
        environment = {"https_proxy": proxy.url("it:p%40ss")}

    with TlsServer(authority, certificate) as server:         # answers with this certificate, whoever asks
        explain(server.address, genesis)

Every server takes a free port and ends with its `with`.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_HEADER_BYTES = 8192


class Server:
    """Accepts on a free loopback port, each connection on a thread of its own, until it is closed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in list(self._open):
            _end(connection)

    def handle(self, connection: socket.socket) -> None:
        """Holds the connection open and says nothing, until the other side or the server ends."""
        while connection.recv(4096):
            pass

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self.handle(connection)
        finally:
            self._open.discard(connection)


class SayingServer(Server):
    """Says the same words to everybody, then closes."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self._words = words

    def handle(self, connection: socket.socket) -> None:
        connection.sendall(self._words)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass


class CuttingServer(Server):
    """Cuts every connection once it has read of it."""

    def handle(self, connection: socket.socket) -> None:
        connection.recv(16)


class TlsServer(Server):
    """Shakes hands with the certificate that it is given and `alpn`, then says nothing."""

    def __init__(self, key_pem: bytes, certificate_pem: bytes, *, alpn: tuple[str, ...] = ("h2",)) -> None:
        super().__init__()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_alpn_protocols(list(alpn))
        with TemporaryDirectory() as folder:
            files = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
            files[0].write_bytes(key_pem)
            files[1].write_bytes(certificate_pem)
            self._context.load_cert_chain(files[1], files[0])

    def handle(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as tls:
            while tls.recv(4096):
                pass


class FakeProxy(Server):
    """Opens tunnels for CONNECT, where the credentials are right.

    Args:
        credentials: "user:password" that Basic authentication must carry; None: nobody is asked.
        refuses: a status that it answers every CONNECT with.
        names: what it resolves host names to; others are not known to it.
        challenge: the authentication that it asks for.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        refuses: int | None = None,
        names: Mapping[str, str] | None = None,
        challenge: str = 'Basic realm="proxy"',
    ) -> None:
        super().__init__()
        self._credentials, self._refuses, self._names, self._challenge = credentials, refuses, names or {}, challenge
        self.asked: list[str] = []
        """What was asked for, host:port, in order."""

    def url(self, credentials: str | None = None) -> str:
        """What https_proxy holds; `credentials` as they are written in it."""
        return f"http://{credentials + '@' if credentials is not None else ''}127.0.0.1:{self.port}"

    def handle(self, connection: socket.socket) -> None:
        header = b""
        while b"\r\n\r\n" not in header and len(header) < _HEADER_BYTES:
            header += connection.recv(1)
        lines = header.decode("latin-1").split("\r\n")
        _, target, _ = lines[0].split()
        self.asked.append(target)
        if not self._authenticated(lines):
            _answer(connection, 407, f"Proxy-Authenticate: {self._challenge}\r\n")
        elif self._refuses is not None:
            _answer(connection, self._refuses)
        else:
            self._tunnel(connection, target)

    def _authenticated(self, lines: list[str]) -> bool:
        if self._credentials is None:
            return True
        expected = "Basic " + base64.b64encode(self._credentials.encode()).decode()
        given = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        return given.get("Proxy-Authorization") == expected

    def _tunnel(self, connection: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        try:
            other = socket.create_connection((self._names.get(host, host), int(port)), timeout=5)
        except OSError:
            _answer(connection, 502)
            return
        other.settimeout(None)
        self._open.add(other)
        _answer(connection, 200)
        back = threading.Thread(target=_pass_on, args=(other, connection), daemon=True)
        back.start()
        _pass_on(connection, other)
        back.join()
        other.close()
        self._open.discard(other)


class ForeignAuthority:
    """An authority that is none of a consortium: a company's TLS inspection, or a public one."""

    def __init__(self, organisation: str, name: str, now: datetime) -> None:
        self._key, self._now = ec.generate_private_key(ec.SECP256R1()), now
        self._name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )

    def issue(self, common_name: str, *dns: str) -> tuple[bytes, bytes]:
        """Key and certificate, PEM, for any name: as such devices make them on the way."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=self._now - timedelta(days=1),
            not_valid_after=self._now + timedelta(days=30),
        ).add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private, certificate.public_bytes(Encoding.PEM)


@contextmanager
def unused_port() -> Iterator[int]:
    """A loopback port that is bound and not listened on: connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def _answer(connection: socket.socket, status: int, headers: str = "") -> None:
    connection.sendall(f"HTTP/1.1 {status} So\r\n{headers}\r\n".encode())


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Until one of the two ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
