"""The ledger's tree in the state database: 256 hashes a row, as C2SP tlog-tiles cuts them.

    tiles of level 1                      (1,0)                       hashes: the roots of 256 tiles of level 0
    tiles of level 0    (0,0)  (0,1)  …  (0,255)  (0,256)  …          hashes: of 256 envelopes each
    envelopes           0…255  256…511   …

A row is written in the transaction that completes it and never changes, so an append costs one hash and a row in 256. Hashes of
unfinished tiles stand in no row: `LedgerTree` holds them, and they follow from the newest envelopes and from the roots of rows.

    grown, tiles = tree.grown([envelope_hash(envelope)])    # in the transaction: tx.append(row); tx.keep_tiles(tiles)
    grown.head()                                            # only after it is `grown` what readers see

Source: c2sp.org/tlog-tiles; RFC 6962 section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from common.ledger.merkle import HASH_BYTES, LEAF_PREFIX, NODE_PREFIX, RunningRoot, TreeHead

TILE_HASHES = 256
TILE_LEVELS = 8
"""Levels of the tree in one tile: 2^8 hashes."""
TILE_BYTES = TILE_HASHES * HASH_BYTES


@dataclass(frozen=True, slots=True)
class Tile:
    """A completed tile: 256 hashes, one after the other, and the root over them, which is a hash of the level above."""

    level: int
    position: int
    root: bytes
    hashes: bytes


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """The newest tile of a level: fewer than 256 hashes, and the root over them as it runs. Never changed in place."""

    hashes: bytes = b""
    running: RunningRoot = field(default_factory=lambda: RunningRoot(sha256))

    def grown(self, nodes: Sequence[bytes]) -> tuple[_Unfinished, list[bytes]]:
        """The tile that is unfinished after more hashes, and those of each that they completed."""
        hashes = self.hashes + b"".join(nodes)
        full = [hashes[at : at + TILE_BYTES] for at in range(0, len(hashes) - TILE_BYTES + 1, TILE_BYTES)]
        rest = hashes[len(full) * TILE_BYTES :]
        running = RunningRoot(sha256) if full else self.running.copy()
        for at in range(running.size * HASH_BYTES, len(rest), HASH_BYTES):
            running.append(rest[at : at + HASH_BYTES])
        return _Unfinished(rest, running), full


class LedgerTree:
    """What of a tree of `size` leaves stands in no row. A value: it never changes, `grown` makes another one."""

    def __init__(self, size: int = 0, unfinished: Sequence[_Unfinished] = ()) -> None:
        self.size = size
        self._levels = tuple(unfinished)

    @classmethod
    def of(cls, size: int, hashes: Sequence[Sequence[bytes]]) -> LedgerTree:
        """The tree of that size, from the hashes of its unfinished tiles, the lowest level's first."""
        return cls(size, [_Unfinished().grown(each)[0] for each in hashes])

    def grown(self, leaves: Sequence[bytes]) -> tuple[LedgerTree, list[Tile]]:
        """The tree with more leaf hashes, and the tiles that they completed, lower levels first."""
        levels: list[_Unfinished] = []
        tiles: list[Tile] = []
        nodes = leaves
        while nodes or len(levels) < len(self._levels):
            level = len(levels)
            before = self._levels[level] if level < len(self._levels) else _Unfinished()
            after, full = before.grown(nodes)
            first = self.size >> (TILE_LEVELS * (level + 1))
            made = [Tile(level, at, all_nodes(each)[-HASH_BYTES:], each) for at, each in enumerate(full, start=first)]
            levels.append(after)
            tiles += made
            nodes = [tile.root for tile in made]
        return LedgerTree(self.size + len(leaves), levels), tiles

    def head(self) -> TreeHead:
        """Size and root, in O(log size)."""
        root: bytes | None = None
        for level in self._levels:
            if level.hashes:
                root = level.running.root(root)
        return TreeHead(self.size, root if root is not None else sha256().digest())

    def hashes(self, level: int) -> bytes:
        """Those of the unfinished tile of a level."""
        return self._levels[level].hashes if level < len(self._levels) else b""


class TileNodes:
    """The nodes of a ledger's tree (common.ledger.tree.Nodes): from rows, and what is in none from a `LedgerTree`. Any thread.

    Args:
        stored: gives `all_nodes` of the completed tile of a level and position.
    """

    def __init__(self, tree: LedgerTree, stored: Callable[[int, int], bytes]) -> None:
        self._tree, self._stored = tree, stored

    def get(self, level: int, position: int) -> bytes:
        """The root of a perfect subtree.

        Raises:
            IndexError: the tree has no such node.
            LedgerConflict: as `stored`.
        """
        tile_level, height = divmod(level, TILE_LEVELS)
        tile, offset = divmod(position << height, TILE_HASHES)
        if tile != self._tree.size >> (TILE_LEVELS * (tile_level + 1)):
            below = 2 * TILE_HASHES - (2 * TILE_HASHES >> height)
            first = (below + (offset >> height)) * HASH_BYTES
            return self._stored(tile_level, tile)[first : first + HASH_BYTES]
        first, end = offset * HASH_BYTES, (offset + (1 << height)) * HASH_BYTES
        found = self._tree.hashes(tile_level)[first:end]
        if len(found) != end - first:
            raise IndexError(f"node {position} of level {level} in a tree of {self._tree.size}")
        return all_nodes(found)[-HASH_BYTES:]

    def put(self, level: int, position: int, node: bytes) -> None:
        raise TypeError("a ledger's tree grows with its envelopes, in their transaction")


def all_nodes(hashes: bytes) -> bytes:
    """2^n hashes, the nodes of each level above them, and their root: one after the other, 2^(n+1) - 1 in all."""
    levels = [hashes]
    while len(hashes) > HASH_BYTES:  # a level at a time: this is most of what a large append computes
        pairs = range(0, len(hashes), 2 * HASH_BYTES)
        hashes = b"".join([sha256(NODE_PREFIX + hashes[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
        levels.append(hashes)
    return b"".join(levels)


def envelope_hash(envelope: bytes) -> bytes:
    """The leaf hash of an entry, as common.ledger.merkle.leaf_hash, but copied: that takes less time than a second call."""
    return sha256(LEAF_PREFIX + envelope).digest()
