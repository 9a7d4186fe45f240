"""The newest cosignature of each witness, in memory. What a majority said of a round's opening is also in the database."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from common.ledger.notes import NoteKey, NoteSignature


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness's cosignature on the checkpoint of `size` entries, verified under `key`.

    The whole key: whoever rotates can choose one with the id of the one before, which is four bytes.
    """

    size: int
    signature: NoteSignature
    key: NoteKey


class Cosignatures:
    """One for each witness, of the largest tree. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Cosigned] = {}
        self.version = 0
        """Grows with each change."""

    def keep(self, institution: str, cosigned: Cosigned) -> None:
        """Remember it, unless one of the same key on a tree as large is there; a new key's takes the place of the old one's."""
        with self._lock:
            known = self._newest.get(institution)
            if known is None or cosigned.size > known.size or known.key != cosigned.key:
                self._newest[institution] = cosigned
                self.version += 1

    def newest(self, institution: str, key: NoteKey) -> Cosigned | None:
        """What that witness cosigned last under that key."""
        with self._lock:
            known = self._newest.get(institution)
        return known if known is not None and known.key == key else None

    def by(self, witnesses: Mapping[str, NoteKey]) -> dict[str, Cosigned]:
        """The newest cosignatures of these witnesses under these keys, by institution."""
        found = {name: self.newest(name, key) for name, key in witnesses.items()}
        return {name: cosigned for name, cosigned in found.items() if cosigned is not None}
