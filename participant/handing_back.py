"""Towards a coordinator that was restored from a backup: what this institution saw goes back to it (docs/protocol.md#recovery).

    Present: newest checkpoint ─▶ entries that the coordinator lacks, with a proof ─▶ metrics of own contributions, blobs by Put

Nothing goes that was not at the coordinator before: entries of the ledger, own deltas and metrics of contributions that stand
in it, models and tokenizers that it names. All that leaves is booked as `recovery`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.clock import Clock, rfc3339
from common.errors import BlobError, LedgerConflict
from common.ledger.state import LedgerState
from common.logs import get_logger
from common.wire.convert_recovery import MAX_PRESENTED_ENTRIES
from common.wire.messages import MetricsRecord, Presented, Purpose, Wanted
from common.wire.session import Session
from common.wire.transfer import TransferOptions
from participant.memory.journal import Egress, Journal
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing

log = get_logger(__name__)

RECOVERY = "recovery"
"""The kind of what left for it, in `egress`."""
BATCH_BYTES = 1024 * 1024
MOST_CALLS = 10_000
"""In one go: a coordinator that asks for the same again and again is asked again later."""


@dataclass(frozen=True, slots=True)
class HandingBackPorts:
    """What is handed back, and how. `beat` is called while that takes its time."""

    institution: str
    session: Session
    mirror: Mirror
    journal: Journal
    witnessing: Witnessing
    blobs: FolderBlobStore
    clock: Clock
    beat: Callable[[], None] = lambda: None


class HandingBack:
    """Used on the follower's thread."""

    def __init__(self, ports: HandingBackPorts) -> None:
        self._ports = ports
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends what is being sent."""
        self._stopping.set()

    def once(self) -> bool:
        """Present what was seen, and bring all that is asked for and is here; whether the coordinator follows on.

        Raises:
            CoordinatorUnreachable: call it again later; what arrived stays.
            MalformedMessage: the coordinator's ledger is not the beginning of the one here, or so it says.
        """
        ports = self._ports
        for note in ports.witnessing.ahead:
            ports.session.present(Presented(note))
        reply = ports.session.present(Presented(ports.witnessing.newest_note, consistency=self._of_this_lineage()))
        for _ in range(MOST_CALLS):
            brought = self._brought(reply) if reply.recovering and not self._stopping.is_set() else None
            if brought is None:
                break
            ports.beat()
            before, reply = reply, ports.session.present(brought)
            if brought.envelopes:
                self._book(sum(map(len, brought.envelopes)), "")
                if reply.ledger_size <= before.ledger_size:
                    break
        return not reply.recovering

    def learn_lineage(self) -> LedgerConflict:
        """The error to end with, once the statement that began the coordinator's newest lineage is verified and kept.

        Raises:
            CoordinatorUnreachable: ask again later.
            LedgerConflict: it shows no such statement.
        """
        ports, mirror = self._ports, self._ports.mirror
        note = ports.witnessing.newest_note
        lineage = ports.session.present(Presented(note, consistency=self._of_this_lineage())).lineage
        first = min(mirror.state.size, lineage - 1)
        if lineage < 1:
            return LedgerConflict("The coordinator says that it began a new lineage, and names no statement that did.")
        while True:
            found = ports.session.follow(from_index=first, wait_seconds=0, lineage=lineage).envelopes
            if not found:
                return LedgerConflict(
                    f"The coordinator says that entry {lineage - 1} begins a new lineage, and has none."
                )
            if first == lineage - 1 < mirror.state.size:
                return mirror.judge_lineage(first, found[0])
            try:
                mirror.admit(first, found)
            except LedgerConflict as err:
                return err
            first = mirror.state.size

    def _brought(self, wanted: Wanted) -> Presented | None:
        """What the next call brings; None: nothing."""
        ports, size = self._ports, wanted.ledger_size
        note, newest = ports.witnessing.newest_note, ports.witnessing.newest_size
        if size < newest:
            envelopes = ports.journal.entries(size, newest, most=MAX_PRESENTED_ENTRIES, max_bytes=BATCH_BYTES)
            proof = ports.mirror.consistency(size + len(envelopes), newest)
            return Presented(note, size, tuple(envelopes), proof)
        if not wanted.blobs and not wanted.metrics:
            return None
        lacking = tuple(ref for ref in wanted.blobs if not self._sent(ref))
        return Presented(
            note, consistency=self._of_this_lineage(), metrics=self._metrics(wanted.metrics), lacking=lacking
        )

    def _of_this_lineage(self) -> tuple[bytes, ...]:
        """The proof that the newest checkpoint's tree holds the statement that began the newest lineage, where there is one."""
        lineage, newest = self._ports.mirror.state.lineage, self._ports.witnessing.newest_size
        return self._ports.mirror.consistency(lineage, newest) if 0 < lineage <= newest else ()

    def _sent(self, ref: BlobRef) -> bool:
        """Whether the coordinator has this blob now; False where it is not here, or not one that it had before."""
        ports = self._ports
        if not (was_there(ports.mirror.state, ports.institution, ref) and ports.blobs.contains(ref)):
            return False
        left = 0

        def on_bytes(count: int) -> None:
            nonlocal left
            left += count
            ports.beat()

        try:
            with ports.blobs.open(ref) as reader:
                options = TransferOptions(on_bytes=on_bytes, stop=self._stopping)
                return ports.session.upload(reader, Purpose(recovery=True), options)
        except BlobError as err:
            log.warning("blob not handed back", extra={"root": ref.root, "code": err.code, "error": err.message})
            return False
        finally:
            self._book(left, ref.root)

    def _metrics(self, digests: tuple[str, ...]) -> tuple[tuple[str, MetricsRecord], ...]:
        """Of own contributions that the ledger holds, as they were sent."""
        found = []
        for digest in digests:
            signed = self._ports.journal.signed_as(digest)
            if signed is not None and signed.metrics and digest in self._ports.mirror.state.places:
                found.append((digest, MetricsRecord(signed.metrics, signed.salt)))
                self._book(len(signed.metrics), digest)
        return tuple(found)

    def _book(self, size: int, digest: str) -> None:
        if size:
            now = rfc3339(self._ports.clock.now())
            self._ports.journal.book(Egress(now, RECOVERY, size, digest, self._ports.session.address))


def was_there(state: LedgerState, institution: str, ref: BlobRef) -> bool:
    """Whether the coordinator had this blob, and may have it of this institution: by the ledger, never by being asked."""
    for run in state.runs.values():
        if ref in (run.statement.initial.model, run.statement.initial.tokenizer):
            return True
        for record in run.rounds:
            own = record.contributions.get(institution)
            if own is not None and ref in own.contribution.blobs.values():
                return True
            if record.closed is not None and ref in record.closed.outputs.blobs:
                return True
    return False
