"""What stands for withheld entries: roots of maximal, aligned, perfect subtrees, cut where a note's tree ends. Pure.

    entries    0 1 2 . . . . . . 9 10        the dots are withheld, and a checkpoint has size 7
    subtrees         └─┬─┘└┘ └┬┘             3; 4 and 5; 6; then 7 and 8 stand alone, as no aligned pair holds both
                     (0,3) (1,2) (0,6) (0,7) (0,8)

So the head of every size at which a note cuts can be computed, and nothing is said of a hidden entry but its hash.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from common.ledger.merkle import HASH_BYTES, node_hash

KEPT_LEVEL = 8
"""Subtrees of so many levels and more are kept once they were computed; smaller ones are computed again."""


def withheld_subtrees(envelopes: Sequence[bytes | None], cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Level and position of what stands for the entries that are None, ascending.

    Args:
        cuts: sizes of trees whose head must be computable, ascending.
    """
    first = None
    for index in range(len(envelopes) + 1):
        hidden = index < len(envelopes) and envelopes[index] is None
        if hidden and first is None:
            first = index
        elif not hidden and first is not None:
            yield from _between(first, index, cuts)
            first = None


def _between(first: int, end: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    inside = cuts[bisect_right(cuts, first) : bisect_left(cuts, end)]
    for stop in (*inside, end):
        while first < stop:
            level = (stop - first).bit_length() - 1
            if first:
                level = min(level, (first & -first).bit_length() - 1)
            yield level, first >> level
            first += 1 << level


class Places:
    """Which indexes of a growing ledger are present, each with its rank among them: a few numbers for each stretch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ranks: list[int] = []
        self._count = 0
        self.size = 0

    def __len__(self) -> int:
        return self._count

    def add(self) -> None:
        """The next index is present."""
        if not self._firsts or self._firsts[-1] + self._count - self._ranks[-1] != self.size:
            self._firsts.append(self.size)
            self._ranks.append(self._count)
        self._count += 1
        self.size += 1

    def skip(self, count: int) -> None:
        """The next ones are not."""
        self.size += count

    def rank(self, index: int) -> int | None:
        """How many present ones come before `index`; None if it is not present itself."""
        at = bisect_right(self._firsts, index) - 1
        if at < 0:
            return None
        end = self._ranks[at + 1] if at + 1 < len(self._ranks) else self._count
        rank = self._ranks[at] + index - self._firsts[at]
        return rank if rank < end else None


class SparseNodes:
    """Nodes of a tree of which some leaves are known, and of the others only subtrees: 32 bytes for each of either."""

    def __init__(self) -> None:
        self._places = Places()
        self._leaves = bytearray()
        self._subtrees: dict[tuple[int, int], bytes] = {}
        self._kept: dict[tuple[int, int], bytes] = {}

    @property
    def places(self) -> Places:
        """Which leaves are known."""
        return self._places

    def add_leaf(self, leaf: bytes) -> None:
        """The next leaf's hash."""
        self._places.add()
        self._leaves += leaf

    def add_subtree(self, level: int, position: int, node: bytes) -> None:
        """The root of the subtree that begins where the tree ends."""
        if position << level != self._places.size:
            raise ValueError(f"subtree {level} {position} where entry {self._places.size} comes next")
        self._subtrees[level, position] = node
        self._places.skip(1 << level)

    def stands(self, level: int, position: int) -> bool:
        """Whether that subtree was given as one hash."""
        return (level, position) in self._subtrees

    def leaf(self, rank: int) -> bytes:
        """A known leaf's hash, by its rank among the known ones."""
        return bytes(self._leaves[rank * HASH_BYTES : (rank + 1) * HASH_BYTES])

    def get(self, level: int, position: int) -> bytes:
        """
        Raises:
            KeyError: it lies inside a subtree of which only the root is known.
        """
        known = self._subtrees.get((level, position)) or self._kept.get((level, position))
        if known is not None:
            return known
        if level == 0:
            rank = self._places.rank(position)
            if rank is None:
                raise KeyError(f"the hash of entry {position} is withheld")
            return self.leaf(rank)
        node = node_hash(hashlib.sha256, self.get(level - 1, 2 * position), self.get(level - 1, 2 * position + 1))
        if level >= KEPT_LEVEL:
            self._kept[level, position] = node
        return node

    def put(self, level: int, position: int, node: bytes) -> None:
        """Not here: a tree that is only partly known does not grow."""
        raise TypeError("a tree of which entries are withheld does not grow")
