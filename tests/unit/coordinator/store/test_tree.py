"""The ledger's tree in tiles, against the plain RFC 6962 tree: every size, every boundary between tiles."""

from __future__ import annotations

import hashlib
import random
from functools import cache
from itertools import pairwise

import pytest

from common.ledger import merkle
from common.ledger.merkle import RunningRoot, leaf_hash
from common.ledger.tree import StoredTree
from coordinator.store.tree import LedgerTree, Tile, TileNodes, all_nodes, envelope_hash

sha256 = hashlib.sha256
LEAVES = [sha256(b"%d" % number).digest() for number in range(66_000)]
"""More than 256², so that a tile of level 1 is completed."""


class Rows:
    """Completed tiles, as a database holds them."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], Tile] = {}
        self.nodes = cache(lambda level, position: all_nodes(self.tiles[level, position].hashes))

    def keep(self, tiles: list[Tile]) -> None:
        for tile in tiles:
            assert (tile.level, tile.position) not in self.tiles, "a tile is written once"
            self.tiles[tile.level, tile.position] = tile

    def of(self, tree: LedgerTree) -> StoredTree:
        return StoredTree(sha256, TileNodes(tree, self.nodes), tree.size)


def grown(*sizes: int) -> tuple[LedgerTree, Rows]:
    """A tree that was grown from each of these sizes to the next."""
    tree, rows = LedgerTree(), Rows()
    for first, end in pairwise((0, *sizes)):
        tree, tiles = tree.grown(LEAVES[first:end])
        rows.keep(tiles)
    return tree, rows


def test_every_size_to_600_has_the_head_of_the_plain_tree() -> None:
    tree, rows, plain = LedgerTree(), Rows(), RunningRoot(sha256)
    assert tree.head() == merkle.TreeHead(0, sha256().digest())
    for size in range(1, 601):
        tree, tiles = tree.grown([LEAVES[size - 1]])
        rows.keep(tiles)
        plain.append(LEAVES[size - 1])
        assert tree.head() == merkle.TreeHead(size, plain.root()), size
    assert sorted(rows.tiles) == [(0, 0), (0, 1)]
    stored, again = rows.of(tree), RunningRoot(sha256)
    for size in range(1, 601):
        again.append(LEAVES[size - 1])
        assert stored.head(size).root == again.root(), f"size {size}, asked for at 600"


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 600])
def test_proofs_are_those_of_the_plain_tree(size: int) -> None:
    tree, rows = grown(size)
    stored, leaves = rows.of(tree), LEAVES[:size]
    for index in {0, 1, size // 2, 254, 255, 256, 257, 511, 512, size - 1}:
        if index < size:
            assert stored.inclusion_proof(index) == merkle.inclusion_proof(sha256, leaves, index)
        if index <= size:
            assert stored.consistency_proof(index) == merkle.consistency_proof(sha256, leaves, index)


def test_a_tree_of_three_levels_of_tiles_proves_every_earlier_size() -> None:
    size = len(LEAVES)
    tree, rows = grown(70, 256, 30_000, 65_535, 65_536, 65_537, size)
    assert (1, 0) in rows.tiles
    assert rows.tiles[1, 0].hashes[:32] == rows.tiles[0, 0].root
    plain = RunningRoot(sha256)
    for leaf in LEAVES:
        plain.append(leaf)
    assert tree.head().root == plain.root()
    stored, draw = rows.of(tree), random.Random(7)
    for _ in range(200):
        end = draw.randrange(1, size + 1)
        index, old = draw.randrange(end), draw.randrange(end + 1)
        head = stored.head(end)
        merkle.verify_inclusion(sha256, head, index, LEAVES[index], stored.inclusion_proof(index, end))
        merkle.verify_consistency(sha256, stored.head(old), head, stored.consistency_proof(old, end))


def test_growing_in_any_portions_gives_the_same_tree_and_the_same_tiles() -> None:
    once, rows = grown(1500)
    for portions in ((1, 2, 255, 256, 257, 1500), (256, 512, 1024, 1500), (600, 601, 1499, 1500)):
        tree, others = grown(*portions)
        assert (tree.head(), others.tiles) == (once.head(), rows.tiles)
        assert [tree.hashes(level) for level in range(3)] == [once.hashes(level) for level in range(3)]


def test_a_tree_never_changes_when_another_grows_from_it() -> None:
    tree, _ = grown(255)
    before = tree.head(), tree.hashes(0)
    one, tiles = tree.grown([LEAVES[255]])
    other, others = tree.grown([bytes(32)])
    assert (tree.head(), tree.hashes(0)) == before
    assert one.head() != other.head()
    assert tiles[0].root != others[0].root


def test_an_unfinished_tree_is_made_again_from_its_hashes() -> None:
    tree, _ = grown(700)
    levels = [tree.hashes(level) for level in range(2)]
    again = LedgerTree.of(700, [[each[at : at + 32] for at in range(0, len(each), 32)] for each in levels])
    assert again.head() == tree.head()
    assert again.grown(LEAVES[700:1400])[1] == tree.grown(LEAVES[700:1400])[1]


def test_a_node_that_is_not_there_yet_is_asked_for_in_vain() -> None:
    tree, rows = grown(300)
    nodes = TileNodes(tree, rows.nodes)
    assert nodes.get(8, 0) == rows.tiles[0, 0].root
    for level, position in ((0, 300), (3, 37), (7, 3), (8, 1), (9, 0)):
        with pytest.raises(IndexError, match=rf"node {position} of level {level} in a tree of 300"):
            nodes.get(level, position)
    with pytest.raises(TypeError, match="grows with its envelopes"):
        nodes.put(0, 300, bytes(32))


def test_an_envelopes_hash_is_the_leaf_hash_of_the_specification() -> None:
    assert envelope_hash(b"envelope") == leaf_hash(sha256, b"envelope")
