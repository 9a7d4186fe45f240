"""The coordinator's own TLS certificate, renewed from its CA without a restart (docs/protocol.md#transport).

All listeners ask `current` at each handshake, and once at start. When less than a third of the certificate's life is left, a
new pair is made and takes the old one's place on disk; connections that stand go on under the old one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from common.clock import Clock, rfc3339
from common.errors import LLMasOSError
from common.identity.authority import Authority
from common.identity.certificates import validity
from common.identity.tls_pair import TlsPair
from common.logs import get_logger
from common.wire.channel import ServerTls

log = get_logger(__name__)

RENEW_SHARE = 1 / 3
"""Of a certificate's life: with less left it is renewed."""
AGAIN_SECONDS = 60.0
"""After a failure, as of the disk. Handshakes meanwhile are served under the old certificate."""


@dataclass(frozen=True, slots=True)
class ServerCertificatePorts:
    """What the certificate is made of."""

    tls: TlsPair
    authority: Authority
    clock: Clock
    days: int


class ServerCertificate:
    """Any thread.

    Raises:
        NotInitialised, StorageFailure, WrongPassphrase: key and certificate cannot be read.
    """

    def __init__(self, ports: ServerCertificatePorts) -> None:
        self._ports = ports
        self._lock = threading.Lock()
        ports.tls.recover()
        self._tls = self._read()
        self._due_at = self._third_left()
        self._not_before = float("-inf")

    def current(self) -> ServerTls:
        """What the next handshake is served with."""
        with self._lock:
            clock = self._ports.clock
            if clock.now() >= self._due_at and clock.monotonic() >= self._not_before:
                self._renew()
            return self._tls

    def _renew(self) -> None:
        ports = self._ports
        now = ports.clock.now()
        try:
            request = ports.tls.stage_key().csr(ports.authority.consortium)
            ports.tls.switch(ports.authority.issue_coordinator(request, now=now, days=ports.days))
            self._tls = self._read()
        except LLMasOSError as err:
            self._not_before = ports.clock.monotonic() + AGAIN_SECONDS
            log.error("server certificate not renewed", extra={"code": err.code, "error": err.message, "fix": err.fix})
            return
        self._due_at = self._third_left()
        if self._due_at <= now:  # the authority itself ends soon: a newer certificate would end with it, too
            self._not_before = ports.clock.monotonic() + AGAIN_SECONDS * 60
        serial, last = ports.tls.certificate_id().serial, validity(self._tls.certificate_pem)[1]
        log.info("server certificate renewed", extra={"serial": serial, "until": rfc3339(last)})

    def _read(self) -> ServerTls:
        key, certificate = self._ports.tls.read()
        return ServerTls(key_pem=key, certificate_pem=certificate, ca_pem=self._ports.authority.certificate_pem)

    def _third_left(self) -> datetime:
        first, last = validity(self._tls.certificate_pem)
        return last - (last - first) * RENEW_SHARE
