"""The stored tree gives what the definition gives, for every small tree, and stays quick in a large one."""

from __future__ import annotations

import hashlib

import pytest

from common.ledger import merkle
from common.ledger.tree import MemoryNodes, StoredTree

SHA256 = hashlib.sha256
MOST = 300
LEAVES = [merkle.leaf_hash(SHA256, str(number).encode()) for number in range(MOST)]


class CountingNodes(MemoryNodes):
    """Counts reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, level: int, position: int) -> bytes:
        self.reads += 1
        return super().get(level, position)


@pytest.fixture(scope="module")
def tree() -> StoredTree:
    tree = StoredTree(SHA256, MemoryNodes())
    for leaf in LEAVES:
        tree.append(leaf)
    return tree


def test_every_root_up_to_300_is_the_definitions(tree: StoredTree) -> None:
    for size in range(MOST + 1):
        assert tree.head(size) == merkle.TreeHead(size, merkle.root(SHA256, LEAVES[:size]))


def test_every_inclusion_proof_is_the_definitions(tree: StoredTree) -> None:
    for size in (1, 2, 3, 7, 8, 9, 31, 64, 100, 255, 300):
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            assert proof == merkle.inclusion_proof(SHA256, LEAVES[:size], index)
            merkle.verify_inclusion(SHA256, tree.head(size), index, LEAVES[index], proof)


def test_every_consistency_proof_is_the_definitions(tree: StoredTree) -> None:
    for size in (1, 2, 7, 8, 33, 129, 300):
        for old in range(size + 1):
            proof = tree.consistency_proof(old, size)
            assert proof == merkle.consistency_proof(SHA256, LEAVES[:size], old)
            merkle.verify_consistency(SHA256, tree.head(old), tree.head(size), proof)


def test_proofs_of_a_large_tree_read_few_nodes() -> None:
    nodes = CountingNodes()
    tree = StoredTree(SHA256, nodes)
    for number in range(20_000):
        tree.append(number.to_bytes(32, "big"))
    nodes.reads = 0
    proof = tree.inclusion_proof(12_345)
    assert len(proof) <= 15
    assert nodes.reads <= 15 * 15
    nodes.reads = 0
    tree.append(bytes(32))
    assert nodes.reads <= 15


def test_a_tree_goes_on_from_its_stored_nodes() -> None:
    nodes = MemoryNodes()
    first = StoredTree(SHA256, nodes)
    for leaf in LEAVES[:77]:
        first.append(leaf)
    again = StoredTree(SHA256, nodes, size=77)
    for leaf in LEAVES[77:]:
        again.append(leaf)
    assert again.head().root == merkle.root(SHA256, LEAVES)


@pytest.mark.parametrize(
    "ask", ["head(301)", "inclusion_proof(300)", "inclusion_proof(5, 5)", "consistency_proof(9, 8)"]
)
def test_what_never_was_is_an_index_error(tree: StoredTree, ask: str) -> None:
    name, _, arguments = ask.rstrip(")").partition("(")
    with pytest.raises(IndexError):
        getattr(tree, name)(*map(int, arguments.split(", ")))
