"""The coordinator's log in a test's hands: it signs any head, true or not, and keeps what witnesses cosigned.

log = SigningLog(coordinator)
log.cosign("south")                                          # south's key, over the head of now
log.reply(from_index=3)                                      # what Follow answers
log.checkpoint(12, root=bytes(32))                           # another history
"""

from __future__ import annotations

from common.identity.keys import SigningKey
from common.ledger.heads import tree_of
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, NoteSignature, checkpoint_text, sign_note
from common.ledger.witnesses import covered_size, witness_key, witnesses_of
from common.wire.messages import Cosignature, LedgerEntries
from tests.support.coordinators import Coordinator


class SigningLog:
    """Signs under the log key of a coordinator in memory."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._key = SigningKey.load(coordinator.layout.log_key)
        self._origin = coordinator.state.genesis.log.origin
        self._cosigned: dict[str, Note] = {}

    def head(self, size: int | None = None) -> TreeHead:
        return tree_of(self._coordinator.envelopes()).head(size)

    def note(self, size: int | None = None, root: bytes | None = None) -> Note:
        """A checkpoint; of the true head, unless a root is given."""
        head = TreeHead(size or 0, root) if root is not None else self.head(size)
        return sign_note(Note(checkpoint_text(self._origin, head)), self._origin, self._key)

    def checkpoint(self, size: int | None = None, root: bytes | None = None) -> bytes:
        return self.note(size, root).encode()

    def cosigned(self, size: int | None, *names: str, root: bytes | None = None) -> bytes:
        """A checkpoint under those institutions' cosignatures."""
        note = self.note(size, root)
        for name in names:
            note = self._coordinator[name].cosign(note, self._seconds)
        return note.encode()

    def cosign(self, *names: str, size: int | None = None) -> None:
        """These institutions cosign the head of that size, by default of now, as honest witnesses do."""
        for name in names:
            self._cosigned[name] = self._coordinator[name].cosign(self.note(size), self._seconds)

    def take(self, name: str, cosignature: Cosignature) -> None:
        """What came with that institution's Follow."""
        member = self._coordinator.state.member(name)
        assert member is not None
        key = witness_key(self._coordinator.state.genesis, member)
        signature = NoteSignature(key.name, key.id, cosignature.signature)
        self._cosigned[name] = self.note(cosignature.size).with_signature(signature)

    def sizes(self) -> dict[str, int]:
        """How many entries each witness cosigned."""
        return {name: int(note.text.split("\n")[1]) for name, note in self._cosigned.items()}

    def reply(self, from_index: int, *, cosigned_size: int = 0, wait_seconds: float = 0.0) -> LedgerEntries:
        """Entries, the newest checkpoint, and what a majority cosigned, if that is more than is known there."""
        found = self._coordinator.ledger.slice(from_index, max_bytes=2**20, wait_seconds=wait_seconds)
        covered = covered_size(self.sizes(), len(witnesses_of(self._coordinator.state)))
        notes = [note.encode() for name, note in self._cosigned.items() if self.sizes()[name] >= covered]
        return LedgerEntries(
            found.first_index,
            found.envelopes,
            found.ledger_size,
            checkpoint=self.checkpoint(),
            cosigned=tuple(notes) if covered > cosigned_size else (),
        )

    @property
    def _seconds(self) -> int:
        return int(self._coordinator.clock.now().timestamp())
