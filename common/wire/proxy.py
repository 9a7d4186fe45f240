"""The proxy that gRPC goes through, read as gRPC's C core reads it, and a tunnel through it, to find out what it says.

    grpc_proxy, https_proxy, http_proxy     the first that is set counts, in lower case; empty: no proxy
    no_grpc_proxy, no_proxy                 ends of host names, and networks as 10.0.0.0/8, separated by commas

    proxy = proxy_for("coordinator.example", os.environ)        # None: gRPC connects directly
    proxy.open_tunnel(connection, "coordinator.example", 7443)  # raises ProxyRefused

Loopback is never reached through a proxy (common.wire.channel). A password is sent to the proxy and shown to nobody.

Source: gRPC 1.85, src/core/handshaker/http_connect/http_proxy_mapper.cc.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from common.errors import ProxyRefused
from common.wire.channel import is_loopback

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_DEFAULT_PORT = 443
_MAX_REPLY_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and the variable that names it."""

    host: str
    port: int
    variable: str
    user: str | None = None
    credentials: bytes | None = field(default=None, repr=False)
    """What Basic authentication sends: user, colon, password. A secret."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.variable})"

    def open_tunnel(self, connection: socket.socket, host: str, port: int) -> None:
        """Ask the proxy for a tunnel over a connection to it; afterwards the connection speaks with `host`.

        Raises:
            ProxyRefused: it answered something else than 2xx, or nothing that is HTTP.
            OSError: the connection broke, or its time-out passed.
        """
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.credentials is not None:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(self.credentials).decode()}")
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        status, headers = _reply(connection)
        if not 200 <= status < 300:
            raise self._refused(target, status, headers)

    def _refused(self, target: str, status: int, headers: str) -> ProxyRefused:
        where = f"The proxy {self}"
        match status:
            case 0:
                return ProxyRefused(
                    f"{where} gave no answer that is HTTP to CONNECT {target}.",
                    f"Check that {self.variable} names an HTTP proxy and its port: http://USER:PASSWORD@HOST:PORT.",
                )
            case 407:
                return self._not_authenticated(target, headers)
            case 403 | 405:
                return ProxyRefused(
                    f"{where} forbids CONNECT {target} (HTTP {status}).",
                    f"Ask the proxy's owner to allow CONNECT to {target}.",
                )
            case 502 | 503 | 504:
                return ProxyRefused(
                    f"{where} is reached, but could itself not reach {target} (HTTP {status}).",
                    "Check that the coordinator runs and that host and port are right; else ask the proxy's owner "
                    "whether it resolves this name and may connect to this port.",
                )
        return ProxyRefused(f"{where} answered CONNECT {target} with HTTP {status}, expected 200.")

    def _not_authenticated(self, target: str, headers: str) -> ProxyRefused:
        offered = sorted({line.split()[1] for line in headers.splitlines() if _is_challenge(line)})
        if offered and not any(scheme.lower() == "basic" for scheme in offered):
            return ProxyRefused(
                f"The proxy {self} asks for {', '.join(offered)} authentication, only Basic is possible here (HTTP 407).",
                f"Ask the proxy's owner for Basic authentication, or for an exception for {target}.",
            )
        if self.user is None:
            return ProxyRefused(
                f"The proxy {self} asks for a user and a password, {self.variable} names none (HTTP 407).",
                f"Set {self.variable}=http://USER:PASSWORD@{self.host}:{self.port}; "
                "write other characters than letters and digits in it as %XX.",
            )
        return ProxyRefused(
            f"The proxy {self} does not accept the user {self.user!r} with the password given (HTTP 407).",
            f"Correct the password in {self.variable}; a character such as @ : / # % must be written as %XX.",
        )


def proxy_for(host: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy through which gRPC reaches `host`; None where it connects directly."""
    variable = _variable(environment)
    if variable is None or is_loopback(host) or _excepted(host, environment):
        return None
    return _parsed(variable, environment[variable])


def ignored_setting(host: str, environment: Mapping[str, str]) -> str | None:
    """A proxy setting that looks as if it were meant and is not used, in words; None if there is none."""
    variable = _variable(environment)
    if is_loopback(host) or (variable is not None and _excepted(host, environment)):
        return None
    if variable is None:
        upper = next((name.upper() for name in VARIABLES if environment.get(name.upper())), None)
        unset = upper is not None and not any(name in environment for name in VARIABLES)
        return f"{upper} is set, but only {upper.lower()}, in lower case, is read" if upper and unset else None
    if _parsed(variable, environment[variable]) is None:
        return f"{variable} is set, but is not of the form http://USER:PASSWORD@HOST:PORT, so it is not used"
    return None


def _variable(environment: Mapping[str, str]) -> str | None:
    """The name of the variable that counts; an empty one means that no proxy is wanted."""
    name = next((name for name in VARIABLES if name in environment), None)
    return name if name is not None and environment[name] else None


def _parsed(variable: str, url: str) -> Proxy | None:
    """The proxy that a URL names; None for what gRPC drops: other schemes than http, no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme != "http" or not host:
        return None
    info, at, _ = parts.netloc.rpartition("@")
    credentials = unquote(info).encode() if at else None
    user = unquote(info.partition(":")[0]) if at else None
    return Proxy(host, port or _DEFAULT_PORT, variable, user, credentials)


def _excepted(host: str, environment: Mapping[str, str]) -> bool:
    name = next((name for name in EXCEPTIONS if name in environment), None)
    entries = [entry.strip() for entry in environment[name].split(",") if entry] if name else []
    return any(host.lower().endswith(entry.lower()) or _in_network(host, entry) for entry in entries)


def _in_network(host: str, entry: str) -> bool:
    try:
        return "/" in entry and ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _reply(connection: socket.socket) -> tuple[int, str]:
    """Status and headers; status 0 for what is not HTTP. Reads no byte beyond the headers: those are the tunnel's."""
    received = bytearray()
    while not received.endswith(b"\r\n\r\n") and len(received) < _MAX_REPLY_BYTES:
        byte = connection.recv(1)
        if not byte:
            break
        received += byte
    text = received.decode("latin-1")
    first, _, headers = text.partition("\r\n")
    words = first.split()
    known = len(words) >= 2 and words[0].startswith("HTTP/") and words[1].isascii() and words[1].isdecimal()
    return (int(words[1]) if known else 0), headers


def _is_challenge(line: str) -> bool:
    return line.lower().startswith("proxy-authenticate:") and len(line.split()) > 1
