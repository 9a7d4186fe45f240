"""Whether large blobs have a way of their own to the coordinator, and the connections on it.

The coordinator says at which port, on the host that is dialled anyway: it cannot send this side to other hosts. Where a
firewall lets the work listener through and not that port, everything goes over gRPC; the log says so, and it is tried again.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from typing import Any, Literal

from common.errors import CoordinatorUnreachable, UnsupportedProtocol
from common.identity.certificates import coordinator_dns
from common.logs import get_logger
from common.statements.kinds import Genesis
from common.wire.bulk.calls import BulkBlobs
from common.wire.bulk.line import Line, LineBroken, unreachable
from common.wire.bulk.tls import ALPN, client_context
from common.wire.channel import split_address
from common.wire.proxy import proxy_for
from common.wire.reach import Surroundings, open_way

log = get_logger(__name__)

TRY_AGAIN_SECONDS = 600.0
HANDSHAKE_SECONDS = 15.0

BulkPort = int | Literal["auto", "off"]


class BulkWay:
    """Of one session; any thread."""

    def __init__(
        self,
        address: str,
        genesis: Genesis,
        *,
        pair: Callable[[], tuple[bytes, bytes]],
        ask: Callable[[], int],
        port: BulkPort = "auto",
    ) -> None:
        """
        Args:
            address: the work listener's.
            pair: this side's TLS key and certificate of the moment, PEM.
            ask: the port that the coordinator says, 0 for none; raises LLMasOSError.
            port: auto: what the coordinator says; off: never; else that one, as behind a forwarding.
        """
        self._host, self._genesis, self._pair, self._ask = address.rpartition(":")[0], genesis, pair, ask
        self._fixed: int | None = {"auto": None, "off": 0}.get(port) if isinstance(port, str) else port
        self._told: int | None = None
        self._context: tuple[tuple[bytes, bytes], ssl.SSLContext] | None = None
        self._works = False
        self._not_before = 0.0

    def blobs(self, stub: Any) -> BulkBlobs | None:
        """A stub for one transfer; None: there is no such way, or none at the moment.

        Args:
            stub: gRPC's, for the calls that stay there.

        Raises:
            LLMasOSError: the coordinator cannot be asked.
        """
        if time.monotonic() < self._not_before:
            return None
        if not self._port():
            self._told, self._not_before = None, time.monotonic() + TRY_AGAIN_SECONDS  # it may be renewed meanwhile
            return None
        if not self._works and not self._try():
            return None
        return BulkBlobs(stub, self.connect)

    def connect(self) -> Line:
        """A new connection, with the certificate of the moment.

        Raises:
            CoordinatorUnreachable: none comes about; its kinds say why.
            NotInitialised, StorageFailure, WrongPassphrase: the key or the certificate cannot be read.
        """
        port, context = self._port(), self._current()
        if not port:
            raise CoordinatorUnreachable(
                "The coordinator has no bulk listener any more.", "Wait: the next transfer goes over gRPC."
            )
        address = f"{self._host}:{port}"
        try:
            line = self._line(address, context)
        except CoordinatorUnreachable:
            self._works, self._told = False, None  # a coordinator that was restarted may listen elsewhere
            raise
        self._works = True
        return line

    def _line(self, address: str, context: ssl.SSLContext) -> Line:
        host, port = split_address(address)
        connection = open_way(host, port, proxy_for(host, os.environ), Surroundings())
        name = coordinator_dns(self._genesis.consortium)
        try:
            line = Line(connection, context, server_hostname=name, seconds=HANDSHAKE_SECONDS)
        except LineBroken as err:
            raise unreachable(err, address) from err
        if line.protocol != ALPN:
            line.close()
            raise CoordinatorUnreachable(
                f"{address} speaks {line.protocol or 'what it does not name'}, expected {ALPN}."
            )
        return line

    def _port(self) -> int:
        """0: there is none."""
        if self._fixed is not None:
            return self._fixed
        if self._told is None:
            try:
                self._told = self._ask()
            except UnsupportedProtocol:  # an older release
                self._told = 0
        return self._told

    def _try(self) -> bool:
        try:
            self.connect().close()
        except CoordinatorUnreachable as err:
            self._not_before = time.monotonic() + TRY_AGAIN_SECONDS
            log.warning("no bulk connection", extra={"code": err.code, "reason": err.message})
            return False
        return True

    def _current(self) -> ssl.SSLContext:
        """Made anew where key or certificate changed."""
        pair = self._pair()
        if self._context is None or self._context[0] != pair:
            key_pem, cert_pem = pair
            ca_pem = self._genesis.ca_certificate.encode()
            self._context = (pair, client_context(ca_pem=ca_pem, key_pem=key_pem, cert_pem=cert_pem))
        return self._context[1]
