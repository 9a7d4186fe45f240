"""Which notes go into a bundle: of this history, or against it; one for each size, signed by nobody unknown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, NoteKey, read_checkpoint
from common.ledger.tree import StoredTree
from common.verify.changes import Changes


class Notes:
    """Grows note by note, each held against the tree.

    Signatures of others than the log and the witnesses of a tree of that size are left out: nobody could say whose they are.
    """

    def __init__(self, tree: StoredTree, log: NoteKey, changes: Changes) -> None:
        self._tree = tree
        self._log = log
        self._changes = changes
        self._found: dict[TreeHead, Note] = {}

    def add(self, note: Note) -> None:
        """
        Raises:
            BadSignature, MalformedStatement: it is no checkpoint of this log.
        """
        head = read_checkpoint(note, self._log)
        if head.size == 0:
            return  # says nothing of any entry
        known = {(key.name, key.id) for key in (self._log, *self._changes.witnesses(head.size).values())}
        into = self._found.get(head, replace(note, signatures=()))
        for signature in note.signatures:
            if (signature.name, signature.key_id) in known:
                into = into.with_signature(signature)
        self._found[head] = into

    def add_named(self, note: Note, shown: Sequence[bool]) -> None:
        """A contribution's checkpoint, where its tree ends between two entries of which neither is shown.

        Raises:
            BadSignature, MalformedStatement: as `add`.
        """
        size = read_checkpoint(note, self._log).size
        if 0 < size < len(shown) and not shown[size - 1] and not shown[size]:
            self.add(note)

    @property
    def covered(self) -> int:
        """The size of the largest tree of this history."""
        return max((head.size for head in self._found if self._is_own(head)), default=0)

    def own(self) -> tuple[bytes, ...]:
        """Those of this history, ascending by size."""
        found = [head for head in self._found if self._is_own(head)]
        return tuple(self._written(head) for head in sorted(found, key=lambda head: head.size))

    def conflicting(self) -> tuple[bytes, ...]:
        """Those that contradict it, or each other where it does not reach; ascending by size, then by their bytes."""
        sizes = Counter(head.size for head in self._found)
        found = [
            (head.size, self._written(head))
            for head in self._found
            if not self._is_own(head) and (head.size <= self._tree.size or sizes[head.size] > 1)
        ]
        return tuple(note for _, note in sorted(found))

    def _written(self, head: TreeHead) -> bytes:
        """The log's signature first, then the witnesses' by name."""
        note = self._found[head]
        ordered = sorted(note.signatures, key=lambda each: (each.name != self._log.name, each.name))
        return replace(note, signatures=tuple(ordered)).encode()

    def _is_own(self, head: TreeHead) -> bool:
        return head.size <= self._tree.size and self._tree.head(head.size) == head
