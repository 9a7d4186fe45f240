"""The tree that a state database holds: read back, checked against the envelopes, and asked for heads and proofs.

tree = recovered(database)                      # a few hundred rows, however long the ledger is
proofs = Tiles(database).of(tree)               # common.ledger.tree.StoredTree: heads and proofs of every size
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from common.errors import LedgerConflict
from common.ledger.tree import StoredTree
from coordinator.store.database import Database
from coordinator.store.migrations import raw
from coordinator.store.tree import TILE_BYTES, TILE_HASHES, LedgerTree, Tile, TileNodes, all_nodes, envelope_hash

CACHED_TILES = 64
"""A megabyte: a proof needs one tile a level, and those of the upper levels are needed by every proof."""
_FIX = "Restore the state database from a backup that is not older than log.head, and find out who wrote to it."


class Tiles:
    """Completed tiles, the newest asked for in memory. Any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._nodes = lru_cache(CACHED_TILES)(self._computed)  # completed tiles never change

    def of(self, tree: LedgerTree) -> StoredTree:
        """Heads and proofs of every size up to that of `tree`.

        Raises on use:
            LedgerConflict: the database lacks a tile, or holds something else in its place.
        """
        return StoredTree(sha256, TileNodes(tree, self._nodes), tree.size)

    def expect(self, tiles: Iterable[Tile]) -> None:
        """Check that the database holds these tiles: what proofs are made of follows from the envelopes.

        Raises:
            LedgerConflict: a row is missing, or differs.
        """
        for tile in tiles:
            if self._database.tile(tile.level, tile.position) != tile:
                raise LedgerConflict(
                    f"{_name(tile.level, tile.position)} is not made from the envelopes beside it.", _FIX
                )

    def _computed(self, level: int, position: int) -> bytes:
        found = self._database.tile(level, position)
        if found is None or len(found.hashes) != TILE_BYTES:
            held = "none" if found is None else f"{len(found.hashes):,} bytes"
            raise LedgerConflict(f"{_name(level, position)} should have {TILE_BYTES:,} bytes, got {held}.", _FIX)
        return all_nodes(found.hashes)


def recovered(database: Database) -> LedgerTree:
    """What stands in no row, from the newest envelopes and the roots of rows; `rebuilt` believes the envelopes alone."""
    size = database.ledger_size()
    first = size - size % TILE_HASHES
    levels = [[envelope_hash(envelope) for envelope in _envelopes(database, first, size)]]
    ended = size // TILE_HASHES
    while ended:
        first = ended - ended % TILE_HASHES
        levels.append(database.tile_roots(len(levels) - 1, first, ended))
        ended //= TILE_HASHES
    return LedgerTree.of(size, levels)


def rebuilt(database: Database) -> LedgerTree:
    """The tree of the stored envelopes, every tile computed anew, a page of envelopes in memory at a time.

    Raises:
        LedgerConflict: a row of the ledger is missing, or a tile does not follow from them.
    """
    tree, tiles = LedgerTree(), Tiles(database)
    while rows := database.envelopes(tree.size):
        for index, row in enumerate(rows, start=tree.size):
            if row.index != index:
                raise LedgerConflict(f"The ledger lacks index {index}; the next row has {row.index}.", _FIX)
        tree, completed = tree.grown([envelope_hash(raw(row.envelope)) for row in rows])
        tiles.expect(completed)
    return tree


def _envelopes(database: Database, first: int, end: int) -> Iterable[bytes]:
    while first < end and (rows := database.envelopes(first, limit=end - first)):
        yield from (raw(row.envelope) for row in rows)
        first = rows[-1].index + 1


def _name(level: int, position: int) -> str:
    return f"Tile {position} of level {level} of the ledger's tree"
