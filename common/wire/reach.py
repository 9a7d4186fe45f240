"""Why a coordinator is not reached: the way there, walked step by step, without gRPC, which only says "unavailable".

    proxy in use?  ─no─▶  name → address  ─▶  TCP  ─┐
         └────yes──▶  TCP to the proxy ─▶ CONNECT  ─┴─▶  TLS: the consortium's authority and name  ─▶  HTTP/2

    fault = explain("coordinator.example:7443", genesis)      # the error to raise, or None: the way is open

Each step is bounded by a few seconds. Nothing is sent but what a connection needs: no certificate, no secret; a
password goes to the proxy that it is for, and into no message.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from common.clock import Clock, SystemClock
from common.errors import CoordinatorUnreachable, LLMasOSError, NameNotResolved, PortBlocked, ProxyRefused
from common.statements.kinds import Genesis
from common.wire.channel import split_address
from common.wire.handshake import Expected, check_certificate
from common.wire.proxy import Proxy, ignored_setting, proxy_for

SECONDS = 5.0
"""For each step. A name server or a network that needs longer is the fault that is looked for."""
MAX_ADDRESSES = 4

SocketAddress = tuple[str, int]
Resolve = Callable[[str, int], list[SocketAddress]]
Connect = Callable[[SocketAddress, float], socket.socket]


def system_resolver(host: str, port: int) -> list[SocketAddress]:
    """The TCP addresses of a name, as this machine resolves it.

    Raises:
        OSError: it does not.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(entry[4][0]), port) for entry in found))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What walking the way takes from this machine; tests give other ones."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    resolve: Resolve = system_resolver
    connect: Connect = socket.create_connection
    clock: Clock = field(default_factory=SystemClock)
    seconds: float = SECONDS


def explain(address: str, genesis: Genesis) -> LLMasOSError | None:
    """Why the coordinator at `address` is not reached from here; None when the way to it is open.

    Raises:
        UsageError: `address` is not host:port.
    """
    return fault_on_the_way(address, Expected(genesis.consortium, genesis.ca_certificate.encode()))


def fault_on_the_way(address: str, expected: Expected, surroundings: Surroundings | None = None) -> LLMasOSError | None:
    """As `explain`, in given surroundings."""
    way = surroundings or Surroundings()
    host, port = split_address(address)
    proxy = proxy_for(host, way.environment)
    try:
        check_certificate(lambda: open_way(host, port, proxy, way), address, expected, way.clock.now())
    except LLMasOSError as fault:
        ignored = ignored_setting(host, way.environment)
        return fault if ignored is None else type(fault)(f"{fault.message} ({ignored})", fault.fix)
    return None


def described_way(address: str, environment: Mapping[str, str]) -> str:
    """How an address is reached from here, in words: directly, or through which proxy."""
    proxy = proxy_for(split_address(address)[0], environment)
    return "directly" if proxy is None else f"through the proxy {proxy}"


# --- names, ports, proxies -------------------------------------------------------------------------------------------------


def open_way(host: str, port: int, proxy: Proxy | None, way: Surroundings) -> socket.socket:
    """A connection that reaches as far as the coordinator's TLS; the caller closes it.

    Raises:
        NameNotResolved, PortBlocked, ProxyRefused: as they say.
    """
    if proxy is None:
        return _connected(host, port, way)
    try:
        connection = _connected(proxy.host, proxy.port, way)
    except CoordinatorUnreachable as err:
        raise ProxyRefused(
            f"The proxy {proxy} is not reached: {err.message}",
            f"Check host and port in {proxy.variable}; unset it if this network needs no proxy.",
        ) from err
    try:
        proxy.open_tunnel(connection, host, port)
    except OSError as err:
        connection.close()
        raise ProxyRefused(f"The proxy {proxy} broke off while asked for {host}:{port}: {_words(err)}.") from err
    except ProxyRefused:
        connection.close()
        raise
    return connection


def _connected(host: str, port: int, way: Surroundings) -> socket.socket:
    """
    Raises:
        NameNotResolved, PortBlocked: as they say; the message tells refused from silent.
    """
    failure: OSError | None = None
    tried = _resolved(host, port, way)[:MAX_ADDRESSES]
    for address in tried:
        try:
            connection = way.connect(address, way.seconds)
        except OSError as err:
            failure = err
        else:
            connection.settimeout(way.seconds)
            return connection
    shown = f"{host}:{port}" if tried == [(host, port)] else f"{host}:{port} ({', '.join(ip for ip, _ in tried)})"
    raise _blocked(shown, failure, way.seconds) from failure


def _resolved(host: str, port: int, way: Surroundings) -> list[SocketAddress]:
    """The name's addresses. The system's resolver knows no time limit, so that it is asked on a thread."""
    found: list[list[SocketAddress] | OSError] = []

    def ask() -> None:
        try:
            found.append(way.resolve(host, port))
        except OSError as err:
            found.append(err)
        except UnicodeError:  # what is longer than a label of a name may be
            found.append(OSError(f"{host[:80]!r} is no name"))

    asking = threading.Thread(target=ask, name="resolver", daemon=True)
    asking.start()
    asking.join(way.seconds)
    if not found:
        raise NameNotResolved(f"The name server gave no address for {host!r} within {way.seconds:g} seconds.")
    answer = found[0]
    if isinstance(answer, OSError):
        raise NameNotResolved(f"The name {host!r} has no address here: {_words(answer)}.") from answer
    if not answer:
        raise NameNotResolved(f"The name {host!r} has no address here.")
    return answer


def _blocked(where: str, failure: OSError | None, seconds: float) -> PortBlocked:
    match failure:
        case ConnectionRefusedError():
            return PortBlocked(
                f"{where} refused the connection: the host is there, and nothing listens on this port.",
                "Check that the coordinator runs and that host and port are right; else a firewall refuses.",
            )
        case TimeoutError():
            return PortBlocked(
                f"{where} did not answer within {seconds:g} seconds: packets are dropped on the way, or the host is down.",
                "Ask your network's owner to allow outgoing TCP to this address and port; where a proxy is needed, set "
                "https_proxy=http://USER:PASSWORD@HOST:PORT.",
            )
    return PortBlocked(f"{where} cannot be reached: {_words(failure) if failure else 'no address'}.")


def _words(err: OSError) -> str:
    if isinstance(err, TimeoutError):
        return "time-out"
    return (err.strerror or str(err)).lower()
