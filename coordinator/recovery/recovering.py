"""A coordinator that holds less of its ledger than was signed for takes back what institutions saw, before it signs again.

    restored, log.head beyond the database, or somebody presents a checkpoint beyond it  ──▶  recovering: the gate is closed
    Present: checkpoint ─▶ entries, each batch proven to be of the checkpoint's tree ─▶ metrics, blobs  ──▶  every leaf is here
    all have presented what they hold, or a majority of the witnesses has and others are silent for a lease  ──▶  signing again

Nothing is believed but what the log's own key signed: a batch of entries is taken when an RFC 6962 proof shows the tree that it
ends to be a beginning of a presented checkpoint's (docs/protocol.md#recovery). So a member can bring nothing that was not in
this ledger, and hold the coordinator up only by what the log really signed.

Whoever acted on a round saw its opening cosigned by a majority of the witnesses, and two majorities share one: so once a
majority has presented, no round is opened again on which somebody worked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import cast

from common.backup.restoring import mark_behind, restoration, settle
from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import (
    BadSignature,
    CoordinatorRecovering,
    LedgerConflict,
    MalformedMessage,
    NewLineage,
    NotAuthorised,
    RefusalError,
)
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead, verify_consistency
from common.ledger.notes import Note, parse_note, read_checkpoint
from common.ledger.rules import admit
from common.ledger.state import LedgerState
from common.ledger.witnesses import majority, witnesses_of
from common.logs import get_logger
from common.statements.envelope import parse
from common.statements.kinds import Contribution, Member
from common.wire.convert_recovery import MAX_WANTED
from common.wire.messages import MetricsRecord, Presented, Wanted
from coordinator.ledger import Ledger
from coordinator.ports import Metrics
from coordinator.recovery.from_files import ClaimedTime, taken_back
from coordinator.recovery.lacking import lacking_in_words, lacking_metrics, needed_blobs
from coordinator.store.database import Database
from coordinator.watching.metrics import metrics_row

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveryPorts:
    """What recovery reads and writes.

    Args:
        head: the checkpoint in log.head, where it is of more entries than the database holds.
        lease_seconds: whoever was silent for so long is not waited for.
        call: runs work on the engine's thread.
        resumed: told when signing goes on.
    """

    home: Path
    ledger: Ledger
    database: Database
    blobs: FolderBlobStore
    clock: Clock
    lease_seconds: float
    head: Note | None
    call: Callable[[Callable[[], Wanted]], Wanted]
    resumed: Callable[[], None]


@dataclass(slots=True)
class _Presenter:
    """What is known of one institution since recovery began: when it was last heard, what it presented and does not hold."""

    heard_at: float
    presented: bool = False
    lacks: set[BlobRef] = field(default_factory=set)
    lacks_metrics: set[str] = field(default_factory=set)
    asked_metrics: tuple[str, ...] = ()


class Recovery:
    """The RecoveryDesk port, and what the engine asks at each turn. State changes on the engine's thread alone."""

    def __init__(self, ports: RecoveryPorts) -> None:
        self._ports, self._ledger = ports, ports.ledger
        self._log = log_key(ports.ledger.state.genesis)
        self._since = ports.clock.monotonic()
        self._goal = TreeHead(0, b"")
        self._goal_by = ""
        self._first_lost = 0
        self._conflict = ""
        self._presenters: dict[str, _Presenter] = {}
        self._asked: dict[BlobRef, str] = {}
        self._lacking: tuple[LedgerState | None, dict[BlobRef, str]] = (None, {})
        note = restoration(ports.home)
        if ports.head is not None:
            self._begin(read_checkpoint(ports.head, self._log), "log.head", ports.head)
        elif note is not None and not note.get("settled"):
            self._begin(TreeHead(0, b""), "", None)

    # --- asked -------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether the coordinator recovers, and signs nothing."""
        return self._ledger.gate.closed

    def waits_for(self) -> str:
        """What is waited for, as a sentence; empty where nothing is."""
        return self._reason() if self.pending else ""

    def fault(self) -> str | None:
        """Why it is not ready (a health check)."""
        return self.waits_for() or None

    def expect_following(self, follower: str, known: int = 0, lineage: int = 0) -> None:
        """As RecoveryDesk.expect_following."""
        self._ledger.gate.expect_open()
        state = self._ledger.state
        size = state.size
        if lineage < state.lineage <= known:
            raise NewLineage(
                f"Entry {state.lineage - 1:,} of the ledger begins a new lineage; {follower} saw {known:,} entries of the one "
                "before."
            )
        if known > size:
            raise CoordinatorRecovering(
                f"The coordinator's ledger has {size:,} entries, {follower} knows of {known:,}: it is to present them."
            )

    def check_upload(self, sender: Member, ref: BlobRef) -> None:
        """As RecoveryDesk.check_upload; shows besides that the sender is busy."""
        if not self.pending or self._asked.get(ref) != sender.name:
            raise NotAuthorised(
                f"{sender.name} sends {ref}, which nobody asked it for: no reply to Present named it.",
                "Ask what is wanted: call Present.",
            )
        self.alive(sender.name)

    def alive(self, name: str) -> None:
        """It sends something that was asked for."""
        presenter = self._presenters.get(name)
        if presenter is not None:
            presenter.heard_at = self._ports.clock.monotonic()

    # --- what institutions bring ---------------------------------------------------------------------------------------

    def present(self, sender: Member, presented: Presented) -> Wanted:
        """As RecoveryDesk.present."""
        head, note = TreeHead(0, b""), None
        if presented.checkpoint:
            note = parse_note(presented.checkpoint)
            head = read_checkpoint(note, self._log)
            if len(note.signatures) != 1:
                raise BadSignature(
                    f"The checkpoint of {head.size:,} entries bears {len(note.signatures)} signatures, expected the "
                    "log's alone."
                )
        return self._ports.call(lambda: self._present(sender, presented, head, note))

    def _present(self, sender: Member, presented: Presented, head: TreeHead, note: Note | None) -> Wanted:
        if not self._was_given_up(presented, head):
            self._judge(sender.name, head, note)
        if not self.pending:
            return Wanted(False, self._ledger.state.size, lineage=self._ledger.state.lineage)
        presenter = self._presenters.setdefault(sender.name, _Presenter(0.0))
        presenter.heard_at = self._ports.clock.monotonic()
        if presented.envelopes and not self._conflict:
            self._take(sender.name, presented, head)
        self._take_metrics(sender.name, presenter, dict(presented.metrics))
        presenter.lacks.update(presented.lacking)
        known = self._ledger.state.size >= head.size or self._was_given_up(presented, head)
        presenter.presented = presenter.presented or known
        wanted = self._wanted(sender.name, presenter)
        self._ledger.gate.close(self._reason())
        return wanted if self.holds() else Wanted(False, self._ledger.state.size, lineage=self._ledger.state.lineage)

    def _was_given_up(self, presented: Presented, head: TreeHead) -> bool:
        """Whether a checkpoint is of a lineage that was given up: its tree does not hold the statement that began the newest.

        Who brings entries proves with them that it does.
        """
        state = self._ledger.state
        if not state.lineage or head.size < state.lineage or presented.envelopes:
            return False
        try:
            verify_consistency(sha256, self._ledger.tree().head(state.lineage), head, presented.consistency)
        except LedgerConflict:
            return True
        return False

    def _judge(self, sender: str, head: TreeHead, note: Note | None) -> None:
        """Begin to recover, or to wait for more, when the log signed for more than is here, or for something else."""
        size = self._ledger.state.size
        if head.size > size:
            if not self.pending or head.size > self._goal.size:
                self._begin(head, sender, note)
        elif head.size and self._ledger.tree().head(head.size) != head and not self._conflict:
            self._begin(self._goal, self._goal_by, note)
            self._stop(
                f"{sender} presented a checkpoint of {head.size:,} entries, root {head.root.hex()}, that this log signed and "
                f"that is not of this ledger: two histories were signed"
            )

    def _begin(self, goal: TreeHead, by: str, note: Note | None) -> None:
        """Sign nothing from here on, also after a restart."""
        size, before = self._ledger.state.size, self._goal
        if not self.pending:
            self._since, self._presenters, self._asked = self._ports.clock.monotonic(), {}, {}
            known = restoration(self._ports.home)
            entries = known.get("entries") if known is not None and not known.get("settled") else None
            self._first_lost = entries if isinstance(entries, int) else size
            mark_behind(self._ports.home, self._ports.clock, entries=self._first_lost)
            log.error("coordinator recovers", extra={"entries": size, "signed": goal.size, "institution": by})
        if goal.size > before.size:
            self._goal, self._goal_by = goal, by
        if note is not None:
            mark_behind(self._ports.home, self._ports.clock, newest=note.encode().decode())
        self._ledger.gate.close(self._reason())

    def _stop(self, conflict: str) -> None:
        """Nothing that institutions bring can help: a person must see to it."""
        self._conflict = conflict
        log.error("recovery stopped", extra={"error": conflict})
        self._ledger.gate.close(self._reason())

    def _take(self, sender: str, presented: Presented, head: TreeHead) -> None:
        """Entries that are proven to be of the checkpoint's tree, durably.

        Raises:
            MalformedMessage: they are not, or do not go on where this ledger ends.
        """
        size = self._ledger.state.size
        skipped = size - presented.first_index
        envelopes = presented.envelopes[max(0, skipped) :]
        if skipped < 0 or size + len(envelopes) > head.size:
            raise MalformedMessage(
                f"PresentRequest.entries: expected entries from {size:,} on and below {head.size:,}, got "
                f"{len(presented.envelopes):,} from {presented.first_index:,}."
            )
        if not envelopes:
            return  # somebody else was faster
        try:
            verify_consistency(sha256, self._ledger.head_after(envelopes), head, presented.consistency)
        except LedgerConflict as err:
            log.warning("presented entries do not fit", extra={"institution": sender, "error": err.message})
            raise MalformedMessage(
                f"The entries {size:,} to {size + len(envelopes) - 1:,} of {sender} are not of the checkpoint of "
                f"{head.size:,} entries that it presents: {err.message}"
            ) from err
        self._take_back(sender, envelopes)

    def _take_back(self, sender: str, envelopes: tuple[bytes, ...]) -> None:
        state, admissions, database = self._ledger.state, [], self._ports.database
        time = ClaimedTime()
        time.begin(database.envelopes(state.size - 1, limit=1)[0].appended_at)
        for envelope in envelopes:
            try:
                admission = admit(state, envelope)
            except RefusalError as err:
                self._stop(
                    f"Entry {state.size:,}, which this log signed for, breaks a rule: {err.message} ({err.code})"
                )
                return
            admissions.append(admission)
            state = admission.state
        self._ledger.take_back(taken_back(admissions, time, {}, set(database.seals())))
        log.info("entries taken back", extra={"institution": sender, "entries": len(envelopes), "size": state.size})

    def _take_metrics(self, sender: str, presenter: _Presenter, brought: Mapping[str, MetricsRecord]) -> None:
        """Metrics of the sender's contributions that it was asked for; what it did not bring it does not hold.

        Raises:
            BadCommitment: they are not those that the contribution commits to.
        """
        asked, presenter.asked_metrics = presenter.asked_metrics, ()
        for digest in asked:
            record = brought.get(digest)
            if record is None:
                presenter.lacks_metrics.add(digest)
                continue
            statement = parse(self._ledger.envelope(self._ledger.state.places[digest]))
            run = self._ledger.state.runs[cast(Contribution, statement.predicate).run]
            row = metrics_row(run, statement, Metrics(record.content, record.salt))
            if row is not None:
                with self._ports.database.transaction() as tx:
                    tx.keep_metrics(row)

    # --- what is wanted ------------------------------------------------------------------------------------------------

    def _wanted(self, name: str, presenter: _Presenter) -> Wanted:
        """What this institution is asked for next: entries first, then what they name."""
        size = self._ledger.state.size
        if size < self._goal.size or self._conflict:
            return Wanted(True, size, lineage=self._ledger.state.lineage)
        blobs = []
        for ref in self._may_hold(name, presenter):
            asked = self._asked.get(ref)
            if asked is None or asked == name or not self._still_may(asked, ref):
                self._asked[ref] = name
                blobs.append(ref)
        metrics = lacking_metrics(self._ledger.state, self._ports.database, self._first_lost)
        mine = (digest for digest, owner in metrics.items() if owner == name and digest not in presenter.lacks_metrics)
        presenter.asked_metrics = tuple(mine)[:MAX_WANTED]
        asked_blobs, lineage = tuple(blobs[:MAX_WANTED]), self._ledger.state.lineage
        return Wanted(True, size, asked_blobs, presenter.asked_metrics, lineage)

    def _still_may(self, name: str, ref: BlobRef) -> bool:
        """Whether one that was asked for a blob may still bring it."""
        presenter = self._presenters.get(name)
        return presenter is not None and ref not in presenter.lacks and not self._silent(name)

    def _may_hold(self, name: str, presenter: _Presenter) -> Iterator[BlobRef]:
        """Blobs that are lacking and that this institution has not said that it lacks."""
        for ref, holder in self._lacking_blobs().items():
            if holder in ("", name) and ref not in presenter.lacks:
                yield ref

    def _lacking_blobs(self) -> dict[BlobRef, str]:
        state = self._ledger.state
        known, lacking = self._lacking
        if known is not state:
            lacking = needed_blobs(state)
        lacking = {ref: holder for ref, holder in lacking.items() if not self._ports.blobs.contains(ref)}
        self._lacking = (state, lacking)
        return lacking

    # --- until when ----------------------------------------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether nothing may be signed; asked at each turn of the engine, it ends recovery once nothing more is to come."""
        if not self.pending:
            return False
        goal, size = self._goal, self._ledger.state.size
        if self._conflict or size < goal.size:
            return True
        if goal.size and self._ledger.tree().head(goal.size) != goal:
            self._stop(f"the ledger that institutions brought is not the one that {self._goal_by} shows was signed for")
            return True
        if any(self._awaited()):
            return True
        self._resume()
        return False

    def _awaited(self) -> Iterator[str]:
        """Institutions that are waited for, and why, in words."""
        state = self._ledger.state
        for name in expected(state):
            presenter = self._presenters.get(name)
            if presenter is None or not presenter.presented:
                if not self._silent(name):
                    yield f"{name} to present what it saw"
            elif not self._silent(name) and (
                any(True for _ in self._may_hold(name, presenter)) or presenter.asked_metrics
            ):
                yield f"{name} to send what it holds"
        needed, there = quorum(state), [name for name in quorum_of(state) if self._has_presented(name)]
        if len(there) < needed:
            yield f"{needed} of {len(quorum_of(state))} witnesses or institutions to present, of whom {len(there)} have"

    def _has_presented(self, name: str) -> bool:
        presenter = self._presenters.get(name)
        return presenter is not None and presenter.presented

    def _silent(self, name: str) -> bool:
        presenter = self._presenters.get(name)
        heard_at = max(self._since, presenter.heard_at if presenter is not None else 0.0)
        return self._ports.clock.monotonic() - heard_at > self._ports.lease_seconds

    def _resume(self) -> None:
        ports, state = self._ports, self._ledger.state
        names = sorted(name for name in self._presenters if self._has_presented(name))
        settle(ports.home, at=rfc3339(ports.clock.now()), entries=state.size, institutions=names)
        self._goal, self._goal_by = TreeHead(0, b""), ""
        self._ledger.gate.open()
        for each in lacking_in_words(state, ports.blobs):
            log.error("nobody holds what a run needs", extra={"lacking": each})
        log.warning("coordinator recovered", extra={"from": self._first_lost, "to": state.size, "institutions": names})
        ports.resumed()

    def _reason(self) -> str:
        """What is waited for, as a sentence."""
        size = self._ledger.state.size
        if self._conflict:
            return f"The coordinator signs nothing: {self._conflict}."
        begin = f"The coordinator recovers and signs nothing: its ledger has {size:,} entries"
        if size < self._goal.size:
            return f"{begin}, {self._goal_by} shows that {self._goal.size:,} were signed for."
        awaited = "; ".join(self._awaited()) or "the next turn"
        return f"{begin}; it waits for {awaited}."


def expected(state: LedgerState) -> tuple[str, ...]:
    """Who is asked what it saw: active members that run a daemon."""
    members = state.roster.members if state.roster else ()
    return tuple(
        each.name
        for each in members
        if state.is_active(each.name) and {"trainer", "evaluator", "witness"} & set(each.roles)
    )


def quorum_of(state: LedgerState) -> tuple[str, ...]:
    """Of whom a majority must have presented: the witnesses; where nobody is one, all who are asked."""
    return tuple(witnesses_of(state)) or expected(state)


def quorum(state: LedgerState) -> int:
    """How many of them."""
    return majority(len(quorum_of(state)))
