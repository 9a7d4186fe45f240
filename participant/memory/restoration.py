"""A restored home may be older than what this institution signed since: it signs nothing before it has read the ledger.

    restored.json ── the ledger followed to its newest checkpoint ──▶ own statements in it are journalled as signed ──▶ settled

So no slot is signed twice whose statement reached the ledger. One that was signed after the backup and never reached it is
unknown to all: the home that knew of it is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from common.backup.restoring import restoration, settle
from common.clock import Clock, rfc3339
from common.errors import LedgerConflict
from common.ledger.state import LedgerState, Place
from common.logs import get_logger
from participant.memory.journal import Journal, SignedSlot
from participant.memory.mirror import Mirror
from participant.tasks import answer_slot, attestation_slot, contribution_slot

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RestorationPorts:
    """What taking over uses. `tell` is the status's."""

    home: Path
    institution: str
    mirror: Mirror
    journal: Journal
    clock: Clock
    tell: Callable[..., None]


class Restoration:
    """`pending` from any thread; `caught_up` on the follower's.

    Raises:
        MalformedBackup: the note that restore left cannot be read.
    """

    def __init__(self, ports: RestorationPorts) -> None:
        self._ports = ports
        self._note = restoration(ports.home)
        self._pending = threading.Event()
        if self._note is not None:
            if not self._note.get("settled"):
                self._pending.set()
            ports.tell(restored=self._note)

    @property
    def pending(self) -> bool:
        """Whether this home was restored, and what it signed since the backup is not known yet."""
        return self._pending.is_set()

    def caught_up(self) -> None:
        """The own copy of the ledger is as long as the coordinator's newest checkpoint.

        Raises:
            LedgerConflict: the ledger holds another statement under this institution's key than its journal.
        """
        if not self.pending:
            return
        ports, state = self._ports, self._ports.mirror.state
        taken = [slot for slot, place in own_statements(state, ports.institution) if self._take_over(slot, place)]
        entries = self._note.get("entries") if self._note else None
        found = {"at": rfc3339(ports.clock.now()), "entries": state.size, "taken_over": len(taken)}
        settle(ports.home, **found)
        self._note = restoration(ports.home)
        ports.tell(restored=self._note)
        self._pending.clear()
        log.warning("restored home caught up", extra={"from": entries, "to": state.size, "taken_over": len(taken)})
        ports.mirror.wake()

    def _take_over(self, slot: str, place: Place) -> bool:
        """Journal it as signed; whether the journal did not know of it."""
        known = self._ports.journal.signed(slot)
        if known is not None and known.digest != place.digest:
            raise LedgerConflict(
                f"Slot {slot} was signed here as {known.digest[:16]}…, the ledger holds {place.digest[:16]}… under this "
                "institution's key.",
                "Find out who else has the key, or a copy of this home; then ask the operator to revoke it.",
            )
        if known is None:
            envelope = self._ports.journal.envelope(place.index)
            at = rfc3339(self._ports.clock.now())
            self._ports.journal.sign(SignedSlot(slot, place.digest, envelope, b"", b"", at))
        return known is None


def own_statements(state: LedgerState, institution: str) -> Iterator[tuple[str, Place]]:
    """Slots of an institution whose statement is in the ledger, and where."""
    for run in state.runs.values():
        answered = run.answers.get(institution)
        if answered is not None:
            yield answer_slot(run), answered.place
        for record in run.rounds:
            given, attested = record.contributions.get(institution), record.attestations.get(institution)
            if given is not None:
                yield contribution_slot(record), given.place
            if attested is not None and record.closed_place is not None:
                yield attestation_slot(record.closed_place), attested.place
