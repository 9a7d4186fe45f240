"""Follows the ledger on a thread of its own: long polls, verifies, keeps. The agent acts on what the mirror then says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import (
    BadSignature,
    CertificateExpired,
    CoordinatorRecovering,
    CoordinatorUnreachable,
    IdentityError,
    LedgerConflict,
    LLMasOSError,
    MalformedStatement,
    NewLineage,
    RefusalError,
    TooManyRequests,
)
from common.logs import get_logger
from common.statements.kinds import Genesis
from common.wire.messages import Inquiry, LedgerEntries
from common.wire.reach import explain
from common.wire.session import Session, diagnose
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing

log = get_logger(__name__)

POLL_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.5
MOST_PAUSE_SECONDS = 15.0
RECOVERING_SECONDS = 1.0
"""Between two calls to a coordinator that recovers: it goes on with what it is shown, and notices who is silent."""
UNANSWERED_SECONDS = 1.0
"""Between polls that end at once and tell nothing new."""
DIAGNOSE_AFTER = 3
"""TLS tells a refused client only "unavailable"; after so many failures the enrolment listener is asked why."""


@dataclass(frozen=True, slots=True)
class FollowerPorts:
    """Everything that following uses.

    Args:
        witnessing: hears each reply, and has the cosignature for the next request.
        explain: why the coordinator refuses this institution's certificate, if it does, or what stands in the way to it.
        tell: hears `connected` and `unreachable`, the latter with a reason once one is known.
        proposals: hears with each reply how many drafts await approvals.
        inquire: given operators' open inquiries, answers those that it wants to; whether it answered one. Quick: the next
            poll waits for it.
    """

    session: Session
    mirror: Mirror
    witnessing: Witnessing
    explain: Callable[[], LLMasOSError | None]
    tell: Callable[..., None]
    inquire: Callable[[Sequence[Inquiry]], bool] = lambda inquiries: False
    proposals: Callable[[int], None] = lambda count: None
    caught_up: Callable[[], None] = lambda: None
    """Called when the own copy is as long as the coordinator said, and its checkpoint was found to be this history."""
    beat: Callable[[], None] = lambda: None
    """Called at each turn of the loop."""
    hand_back: Callable[[], bool] = lambda: False
    """Give a recovering coordinator what it lacks; whether it goes on."""
    learn_lineage: Callable[[], LedgerConflict] = lambda: NewLineage(
        "The coordinator says that it began a new lineage."
    )
    """Fetch and verify the statement that began a new lineage; what to end with, once it is kept for a person to decide."""


class Follower:
    """`start` it, `stop` it; `failure` is set when following must not go on."""

    def __init__(self, ports: FollowerPorts) -> None:
        self._session, self._mirror, self._witnessing = ports.session, ports.mirror, ports.witnessing
        self._inquire = ports.inquire
        self._explain = ports.explain
        self._tell = ports.tell
        self._proposals, self._beat, self._caught_up = ports.proposals, ports.beat, ports.caught_up
        self._hand_back, self._learn_lineage = ports.hand_back, ports.learn_lineage
        self.recovering = False
        """Whether the coordinator said, when it was last asked, that it recovers and signs nothing."""
        self.recoveries = 0
        """How often it came back from that since this start: what it refused before, it may have refused in ignorance."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._told = ""
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
            self._beat()
            try:
                self._turn()
                failures = 0
            except CoordinatorRecovering as err:
                self._wait_for_recovery(err)
            except CoordinatorUnreachable as err:
                if self._stopping.is_set():
                    return
                failures += 1
                self._witnessing.cut_off()
                self._on_unreachable(err, failures)
            except LLMasOSError as err:
                # A rate limit is an IdentityError that passes; the others stay until a person acts.
                if isinstance(err, LedgerConflict | IdentityError) and not isinstance(err, TooManyRequests):
                    self._fail(err)
                    return
                failures += 1
                log.warning("following failed", extra={"code": err.code, "error": err.message})
                self._pause(failures)

    def _turn(self) -> None:
        """Follow; or, where the coordinator holds less than was seen here, give it what it lacks."""
        try:
            self._follow_once()
        except CoordinatorRecovering as err:
            self._witnessing.cut_off()
            self._on_recovering(err)
            if not self._hand_back():
                self._stopping.wait(RECOVERING_SECONDS)

    def _on_recovering(self, err: CoordinatorRecovering) -> None:
        self.recovering = True
        self._tell("recovering", err.message)
        if err.message != self._told:
            self._told = err.message
            log.warning("coordinator is recovering", extra={"error": err.message})

    def _wait_for_recovery(self, err: CoordinatorRecovering) -> None:
        """It does not even know this institution's certificate yet."""
        self._on_recovering(err)
        self._stopping.wait(RECOVERING_SECONDS)

    def _follow_once(self) -> None:
        entries = self._poll()
        if self.recovering:
            self.recoveries += 1
            self.recovering = False
        self._tell("connected")
        self._proposals(entries.open_proposals)
        self._told = ""
        if entries.envelopes:
            self._admit(entries)
        news = self._witnessing.heard(entries) or bool(entries.envelopes)
        if self._mirror.state.size >= entries.ledger_size:
            self._caught_up()
        answered = bool(entries.inquiries) and self._inquire(entries.inquiries)
        if (entries.inquiries or entries.cosigned) and not (news or answered):
            # An open inquiry, or cosignatures that count for nothing here, end each poll at once: this must not become a race.
            self._stopping.wait(UNANSWERED_SECONDS)

    def _admit(self, entries: LedgerEntries) -> None:
        try:
            self._mirror.admit(entries.first_index, entries.envelopes)
        except NewLineage:
            raise
        except LedgerConflict:
            # The checkpoint beside it may be what proves the two histories; one that is not the log's proves nothing.
            with suppress(BadSignature, MalformedStatement):
                self._witnessing.heard(entries)
            raise

    def _poll(self) -> LedgerEntries:
        """The next reply. A cosignature goes along until the coordinator has taken or refused it."""
        cosignature = self._witnessing.waiting
        try:
            entries = self._session.follow(
                from_index=self._mirror.state.size,
                wait_seconds=POLL_SECONDS,
                cosignature=cosignature,
                cosigned_size=self._witnessing.covered,
                seen_size=self._witnessing.seen_size,
                lineage=self._mirror.state.lineage,
            )
        except NewLineage:
            raise self._learn_lineage() from None  # the coordinator's own words decide nothing: its statement does
        except RefusalError as err:
            if cosignature is not None and not isinstance(err, TooManyRequests):
                self._witnessing.sent(cosignature)
            raise
        if cosignature is not None:
            self._witnessing.sent(cosignature)
        return entries

    def _on_unreachable(self, err: CoordinatorUnreachable, failures: int) -> None:
        if not self._told:
            self._tell("unreachable")
        if failures == 1:
            log.warning("coordinator unreachable", extra={"error": err.message})
        if failures % DIAGNOSE_AFTER == 0:
            reason = self._explain()
            if isinstance(reason, CoordinatorUnreachable):
                self._on_reason(reason)
            elif reason is not None:
                self._fail(reason)
                self._stopping.set()
                return
        self._pause(failures)

    def _on_reason(self, reason: CoordinatorUnreachable) -> None:
        """What stands in the way may pass: it is told, once for each reason, and following goes on."""
        if reason.message != self._told:
            self._told = reason.message
            log.warning(
                "coordinator unreachable", extra={"code": reason.code, "error": reason.message, "fix": reason.fix}
            )
        self._tell("unreachable", reason.message)

    def _fail(self, err: LLMasOSError) -> None:
        log.error("following stopped", extra={"code": err.code, "error": err.message, "fix": err.fix})
        self.failure = err
        self._mirror.wake()

    def _pause(self, failures: int) -> None:
        self._stopping.wait(min(MOST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)))


def diagnosis(address: str, genesis: Genesis, certificate: Path, work: str | None = None) -> LLMasOSError | None:
    """Why the coordinator refuses our certificate, if that is what it does; else what stands in the way to it, if anything.

    Args:
        address: the enrolment listener's.
        work: the work listener's, to which the way is then walked.

    Returns:
        IdentityError: the certificate is refused. CoordinatorUnreachable, by its kinds: what is on the way.
    """
    try:
        found = diagnose(
            address,
            consortium=genesis.consortium,
            ca_pem=genesis.ca_certificate.encode(),
            certificate_pem=certificate.read_bytes(),
        )
    except LLMasOSError:
        return _on_the_way(work, genesis)  # the enrolment listener is as silent as the other
    if found.code == "ok":
        return _on_the_way(work, genesis)
    kind = CertificateExpired if found.code == CertificateExpired.code else IdentityError
    return kind(f"The coordinator refuses this certificate: {found.message} ({found.code})", found.fix)


def _on_the_way(work: str | None, genesis: Genesis) -> CoordinatorUnreachable | None:
    fault = explain(work, genesis) if work is not None else None
    if fault is None or isinstance(fault, CoordinatorUnreachable):
        return fault
    # Another consortium at this address, or an expired certificate of the coordinator: not ours to end for.
    return CoordinatorUnreachable(fault.message, fault.fix)
