"""Follows the ledger on a thread of its own: long polls, verifies, keeps. The agent acts on what the mirror then says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from common.errors import CoordinatorUnreachable, IdentityError, LedgerConflict, LLMasOSError, TooManyRequests
from common.logs import get_logger
from common.statements.kinds import Genesis
from common.wire.session import Session, diagnose
from participant.mirror import Mirror

log = get_logger(__name__)

POLL_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 15.0
DIAGNOSE_AFTER = 3
"""TLS tells a refused client only "unavailable"; after so many failures the enrolment listener is asked why."""


class Follower:
    """`start` it, `stop` it; `failure` is set when following must not go on."""

    def __init__(
        self, session: Session, mirror: Mirror, explain: Callable[[], LLMasOSError | None], tell: Callable[[str], None]
    ) -> None:
        self._session = session
        self._mirror = mirror
        self._explain = explain
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.failure: LLMasOSError | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the poll in progress, which closing the session cuts short."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                self._follow_once()
                failures = 0
            except CoordinatorUnreachable as err:
                if self._stopping.is_set():
                    return
                failures += 1
                self._on_unreachable(err, failures)
            except LLMasOSError as err:
                # A rate limit is an IdentityError that passes; the others stay until a person acts.
                if isinstance(err, LedgerConflict | IdentityError) and not isinstance(err, TooManyRequests):
                    self._fail(err)
                    return
                failures += 1
                log.warning("following failed", extra={"code": err.code, "error": err.message})
                self._pause(failures)

    def _follow_once(self) -> None:
        entries = self._session.follow(from_index=self._mirror.state.size, wait_seconds=POLL_SECONDS)
        self._tell("connected")
        if entries.ledger_size < self._mirror.state.size:
            raise LedgerConflict(
                f"The coordinator's ledger has {entries.ledger_size} statements, this copy {self._mirror.state.size}: "
                "it was restored from an older state, or shows another history."
            )
        if entries.envelopes:
            self._mirror.admit(entries.first_index, entries.envelopes)

    def _on_unreachable(self, err: CoordinatorUnreachable, failures: int) -> None:
        self._tell("unreachable")
        if failures == 1:
            log.warning("coordinator unreachable", extra={"error": err.message})
        if failures % DIAGNOSE_AFTER == 0:
            reason = self._explain()
            if reason is not None:
                self._fail(reason)
                self._stopping.set()
                return
        self._pause(failures)

    def _fail(self, err: LLMasOSError) -> None:
        log.error("following stopped", extra={"code": err.code, "error": err.message, "fix": err.fix})
        self.failure = err
        self._mirror.wake()

    def _pause(self, failures: int) -> None:
        self._stopping.wait(min(MOST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)))


def diagnosis(address: str, genesis: Genesis, certificate: Path) -> LLMasOSError | None:
    """Why the coordinator refuses our certificate, if that is what it does; None if it cannot be asked or finds it good."""
    try:
        found = diagnose(
            address,
            consortium=genesis.consortium,
            ca_pem=genesis.ca_certificate.encode(),
            certificate_pem=certificate.read_bytes(),
        )
    except LLMasOSError:
        return None  # the enrolment listener is as silent as the other: nothing is known yet
    if found.code == "ok":
        return None
    return IdentityError(f"The coordinator refuses this certificate: {found.message} ({found.code})", found.fix)
