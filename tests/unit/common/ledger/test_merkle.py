"""RFC 6962 trees: published vectors, and every proof of every small tree."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LedgerConflict
from common.ledger import merkle
from common.ledger.tree import MemoryNodes, StoredTree

SHA256 = hashlib.sha256

# Certificate Transparency's test vectors (google/certificate-transparency, merkle_tree_test).
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [merkle.leaf_hash(SHA256, entry) for entry in ENTRIES]
_A = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
_B = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_AB = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
_CD = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_E = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_EF = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
_GH = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_ABCD = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
_EFGH = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
INCLUSION = {
    (0, 1): [],
    (0, 8): [_B, _CD, _EFGH],
    (5, 8): [_E, _GH, _ABCD],
    (2, 3): [_AB],
    (1, 5): [_A, _CD, _E],
}
"""By index and size: testPaths of the same source, whose indexes count from 1."""
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [_B, _CD, _EFGH],
    (6, 8): [_EF, _GH, _ABCD],
    (2, 5): [_CD, _E],
}
"""By the two sizes: testProofs of the same source."""


def published_head(size: int) -> merkle.TreeHead:
    return merkle.TreeHead(size, bytes.fromhex(ROOTS[size]))


def leaves(count: int, h: merkle.HashFunction = SHA256) -> list[bytes]:
    return [merkle.leaf_hash(h, index.to_bytes(4, "big")) for index in range(count)]


def head(h: merkle.HashFunction, leaf_hashes: list[bytes]) -> merkle.TreeHead:
    return merkle.TreeHead(len(leaf_hashes), merkle.root(h, leaf_hashes))


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert merkle.root(SHA256, LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(stored: StoredTree, index: int, size: int) -> None:
    published = [bytes.fromhex(node) for node in INCLUSION[index, size]]
    assert merkle.inclusion_proof(SHA256, LEAVES[:size], index) == published
    assert stored.inclusion_proof(index, size) == published
    merkle.verify_inclusion(SHA256, published_head(size), index, LEAVES[index], published)


@pytest.mark.parametrize(("old", "size"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(stored: StoredTree, old: int, size: int) -> None:
    published = [bytes.fromhex(node) for node in CONSISTENCY[old, size]]
    assert merkle.consistency_proof(SHA256, LEAVES[:size], old) == published
    assert stored.consistency_proof(old, size) == published
    merkle.verify_consistency(SHA256, published_head(old), published_head(size), published)


@pytest.mark.parametrize("size", range(9))
def test_a_stored_tree_has_the_published_roots(stored: StoredTree, size: int) -> None:
    assert stored.head(size) == published_head(size)


def test_the_example_of_the_rfc_has_the_proofs_that_it_names(example: dict[str, bytes]) -> None:
    """RFC 6962 section 2.1.3: a tree of seven entries, its nodes named by letters."""
    tree = [example[letter] for letter in "abcdefj"]
    for index, path in {0: "bhl", 3: "cgl", 4: "fjk", 6: "ik"}.items():
        assert merkle.inclusion_proof(SHA256, tree, index) == [example[letter] for letter in path]
    for old, path in {3: "cdgl", 4: "l", 6: "ijk"}.items():
        assert merkle.consistency_proof(SHA256, tree, old) == [example[letter] for letter in path]


@pytest.fixture(scope="module")
def stored() -> StoredTree:
    tree = StoredTree(SHA256, MemoryNodes())
    for leaf in LEAVES:
        tree.append(leaf)
    return tree


@pytest.fixture(scope="module")
def example() -> dict[str, bytes]:
    """The RFC's letters: a to f and j are leaves 0 to 6, the others nodes."""
    nodes = {letter: SHA256(b"\x00d" + str(number).encode()).digest() for number, letter in enumerate("abcdefj")}
    for letter, (left, right) in {"g": "ab", "h": "cd", "i": "ef", "k": "gh", "l": "ij"}.items():
        nodes[letter] = SHA256(b"\x01" + nodes[left] + nodes[right]).digest()
    return nodes


def test_blake3_gives_another_tree_of_the_same_shape() -> None:
    three = leaves(3, blake3)
    left = merkle.node_hash(blake3, three[0], three[1])
    assert merkle.root(blake3, three) == merkle.node_hash(blake3, left, three[2])
    assert merkle.root(blake3, []) == blake3(b"").digest()


@pytest.mark.parametrize("h", [SHA256, blake3])
def test_every_inclusion_proof_of_small_trees_verifies_and_no_other_leaf_does(h: merkle.HashFunction) -> None:
    for size in range(1, 20):
        tree = leaves(size, h)
        for index in range(size):
            proof = merkle.inclusion_proof(h, tree, index)
            merkle.verify_inclusion(h, head(h, tree), index, tree[index], proof)
            with pytest.raises(LedgerConflict, match=r"leads to root|too many|too few"):
                merkle.verify_inclusion(h, head(h, tree), index, b"\xff" * 32, proof)


def test_every_consistency_proof_of_small_trees_verifies() -> None:
    for size in range(20):
        tree = leaves(size)
        for old in range(size + 1):
            proof = merkle.consistency_proof(SHA256, tree, old)
            merkle.verify_consistency(SHA256, head(SHA256, tree[:old]), head(SHA256, tree), proof)


def test_a_changed_history_is_refused_at_every_pair_of_sizes() -> None:
    for size, old in itertools.product(range(1, 17), range(1, 17)):
        if old > size:
            continue
        tree, other = leaves(size), leaves(size)
        other[old - 1] = b"\x11" * 32
        proof = merkle.consistency_proof(SHA256, tree, old)
        with pytest.raises(LedgerConflict, match="leads to root"):
            merkle.verify_consistency(SHA256, head(SHA256, other[:old]), head(SHA256, tree), proof)


@settings(deadline=None)
@given(size=st.integers(1, 70), data=st.data())
def test_proofs_of_the_wrong_length_are_refused(size: int, data: st.DataObject) -> None:
    tree = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(SHA256, tree, index)
    with pytest.raises(LedgerConflict, match="which is too many"):
        merkle.verify_inclusion(SHA256, head(SHA256, tree), index, tree[index], [*proof, b"\0" * 32])
    if proof:
        with pytest.raises(LedgerConflict, match="which is too few"):
            merkle.verify_inclusion(SHA256, head(SHA256, tree), index, tree[index], proof[:-1])


def test_consistency_proofs_of_the_wrong_length_are_refused() -> None:
    tree = leaves(7)
    old, new = head(SHA256, tree[:3]), head(SHA256, tree)
    proof = merkle.consistency_proof(SHA256, tree, 3)
    with pytest.raises(LedgerConflict, match="which is too many"):
        merkle.verify_consistency(SHA256, old, new, [*proof, b"\0" * 32])
    with pytest.raises(LedgerConflict, match="which is too few"):
        merkle.verify_consistency(SHA256, old, new, proof[:-1])
    with pytest.raises(LedgerConflict, match="no hashes, which is too few"):
        merkle.verify_consistency(SHA256, old, new, [])
    with pytest.raises(LedgerConflict, match="expected none"):
        merkle.verify_consistency(SHA256, new, new, proof)


def test_a_ledger_that_shrinks_is_refused() -> None:
    tree = leaves(5)
    with pytest.raises(LedgerConflict, match="a ledger never shrinks"):
        merkle.verify_consistency(SHA256, head(SHA256, tree), head(SHA256, tree[:3]), [])


def test_an_entry_beyond_the_end_is_in_no_tree() -> None:
    tree = leaves(5)
    with pytest.raises(LedgerConflict, match="the last entry is 4"):
        merkle.verify_inclusion(SHA256, head(SHA256, tree), 5, tree[0], [])
    with pytest.raises(IndexError, match="leaf 5 of a tree of 5"):
        merkle.inclusion_proof(SHA256, tree, 5)
    with pytest.raises(IndexError, match="the first 6 leaves of a tree of 5"):
        merkle.consistency_proof(SHA256, tree, 6)


def test_two_empty_histories_agree_only_on_the_empty_root() -> None:
    new = head(SHA256, leaves(3))
    merkle.verify_consistency(SHA256, head(SHA256, []), new, [])
    with pytest.raises(LedgerConflict, match="leads to root"):
        merkle.verify_consistency(SHA256, merkle.TreeHead(0, b"\0" * 32), new, [])


@settings(deadline=None)
@given(st.integers(0, 300))
def test_a_running_root_is_the_recursive_definition(size: int) -> None:
    def defined(tree: list[bytes]) -> bytes:
        if len(tree) < 2:
            return tree[0] if tree else SHA256().digest()
        split = 1
        while 2 * split < len(tree):
            split *= 2
        return merkle.node_hash(SHA256, defined(tree[:split]), defined(tree[split:]))

    assert merkle.root(SHA256, leaves(size)) == defined(leaves(size))


def test_a_leaf_may_come_in_pieces() -> None:
    hasher = merkle.leaf_hasher(SHA256)
    hasher.update(b"ab")
    hasher.update(memoryview(b"c"))
    assert hasher.digest() == merkle.leaf_hash(SHA256, b"abc") == SHA256(b"\x00abc").digest()
