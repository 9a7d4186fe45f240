"""A stored RFC 6962 tree: roots and proofs of a ledger of any length from O(log n) hashes, pure (docs/protocol.md#merkle).

Kept are the roots of perfect subtrees, node (level, position) over leaves position·2^level to (position+1)·2^level − 1. They
never change once they are complete, so appending a leaf writes one hash, and at times a few more; nothing is rewritten.

    level 2        (2,0)                 a tree of 6 leaves: root = H(1 ‖ (2,0) ‖ (1,2))
    level 1    (1,0)   (1,1)   (1,2)
    level 0    0   1   2   3   4   5

Source: RFC 6962 sections 2.1 to 2.1.2; the layout is that of C2SP tlog-tiles with tiles of height one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from common.ledger.merkle import HashFunction, TreeHead, node_hash


class Nodes(Protocol):
    """Where hashes of perfect subtrees lie."""

    def get(self, level: int, position: int) -> bytes: ...

    def put(self, level: int, position: int, node: bytes) -> None: ...


class MemoryNodes:
    """Nodes in a dictionary."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, position: int) -> bytes:
        return self._nodes[level, position]

    def put(self, level: int, position: int, node: bytes) -> None:
        self._nodes[level, position] = node


class StoredTree:
    """A tree of `size` leaves over stored nodes. It only grows; every earlier size can still be asked for."""

    def __init__(self, h: HashFunction, nodes: Nodes, size: int = 0) -> None:
        self._h = h
        self._nodes = nodes
        self.size = size

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash, and the subtrees that it completes."""
        position, node = self.size, leaf
        self._nodes.put(0, position, node)
        level = 0
        while position & 1:
            node = node_hash(self._h, self._nodes.get(level, position - 1), node)
            level, position = level + 1, position >> 1
            self._nodes.put(level, position, node)
        self.size += 1

    def head(self, size: int | None = None) -> TreeHead:
        """Size and root of the tree as it was at `size` leaves, by default now.

        Raises:
            IndexError: there were never so many.
        """
        size = self._known(self.size if size is None else size)
        return TreeHead(size, self._root(0, size) if size else self._h().digest())

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """The siblings from leaf `index` up to the root at `size` leaves.

        Raises:
            IndexError: that tree has no such leaf, or there were never so many.
        """
        size = self._known(self.size if size is None else size)
        if not 0 <= index < size:
            raise IndexError(f"leaf {index} of a tree of {size}")
        return list(self._inclusion(index, 0, size))

    def consistency_proof(self, old_size: int, size: int | None = None) -> list[bytes]:
        """What shows that the tree of `old_size` leaves begins the one of `size`.

        Raises:
            IndexError: `old_size` is larger, or there were never so many.
        """
        size = self._known(self.size if size is None else size)
        if not 0 <= old_size <= size:
            raise IndexError(f"the first {old_size} leaves of a tree of {size}")
        return list(self._consistency(old_size, 0, size, whole=True)) if old_size else []

    def _known(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise IndexError(f"{size} leaves of a tree of {self.size}")
        return size

    def _root(self, first: int, end: int) -> bytes:
        """The root over leaves `first` to `end` - 1, where `first` is where a subtree of the whole begins."""
        count = end - first
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            return self._nodes.get(level, first >> level)
        split = first + _split(count)
        return node_hash(self._h, self._root(first, split), self._root(split, end))

    def _inclusion(self, index: int, first: int, end: int) -> Iterator[bytes]:
        if end - first == 1:
            return
        split = first + _split(end - first)
        if index < split:
            yield from self._inclusion(index, first, split)
            yield self._root(split, end)
        else:
            yield from self._inclusion(index, split, end)
            yield self._root(first, split)

    def _consistency(self, old: int, first: int, end: int, *, whole: bool) -> Iterator[bytes]:
        if old == end:
            if not whole:
                yield self._root(first, end)
            return
        split = first + _split(end - first)
        if old <= split:
            yield from self._consistency(old, first, split, whole=whole)
            yield self._root(split, end)
        else:
            yield from self._consistency(old, split, end, whole=False)
            yield self._root(first, split)


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)
