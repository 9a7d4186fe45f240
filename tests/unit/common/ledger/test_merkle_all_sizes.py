"""Every proof of every tree up to 300 leaves, against RFC 6962's definitions; and every way to spoil one is refused."""

from __future__ import annotations

import ast
import functools
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from common.blobs import digest
from common.errors import LedgerConflict
from common.ledger import merkle
from common.ledger.merkle import TreeHead, verify_consistency, verify_inclusion
from common.ledger.tree import MemoryNodes, StoredTree

MOST = 300
SHA256 = hashlib.sha256
ENTRIES = [f"entry {number}".encode() for number in range(MOST)]
LEAVES = [merkle.leaf_hash(SHA256, entry) for entry in ENTRIES]
ROOT = Path(__file__).resolve().parents[4]


# --- RFC 6962 section 2.1, as it is written ----------------------------------------------------------------------------------


@functools.cache
def mth(first: int, end: int) -> bytes:
    """MTH(D[first:end])."""
    if first == end:
        return SHA256().digest()
    if end - first == 1:
        return SHA256(b"\x00" + ENTRIES[first]).digest()
    k = first + half(end - first)
    return SHA256(b"\x01" + mth(first, k) + mth(k, end)).digest()


def half(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, first: int, end: int) -> list[bytes]:
    """PATH(m, D[first:end])."""
    if end - first == 1:
        return []
    k = half(end - first)
    if m < k:
        return [*path(m, first, first + k), mth(first + k, end)]
    return [*path(m - k, first + k, end), mth(first, first + k)]


def subproof(m: int, first: int, end: int, whole: bool) -> list[bytes]:
    """SUBPROOF(m, D[first:end], b)."""
    if m == end - first:
        return [] if whole else [mth(first, end)]
    k = half(end - first)
    if m <= k:
        return [*subproof(m, first, first + k, whole), mth(first + k, end)]
    return [*subproof(m - k, first + k, end, False), mth(first, first + k)]


def head(size: int) -> TreeHead:
    return TreeHead(size, mth(0, size))


@pytest.fixture(scope="module")
def tree() -> StoredTree:
    tree = StoredTree(SHA256, MemoryNodes())
    for leaf in LEAVES:
        tree.append(leaf)
    return tree


def test_every_root_is_the_definitions(tree: StoredTree) -> None:
    growing = merkle.RunningRoot(SHA256)
    for size in range(MOST + 1):
        assert tree.head(size) == head(size)
        assert growing.root() == head(size).root
        growing.append(LEAVES[size % MOST])


def test_every_entry_of_every_tree_has_the_defined_proof_and_it_verifies(tree: StoredTree) -> None:
    for size in range(1, MOST + 1):
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            assert proof == path(index, 0, size)
            verify_inclusion(SHA256, head(size), index, LEAVES[index], proof)


def test_every_two_sizes_have_the_defined_proof_and_it_verifies(tree: StoredTree) -> None:
    for size in range(MOST + 1):
        for old in range(size + 1):
            proof = tree.consistency_proof(old, size)
            assert proof == (subproof(old, 0, size, True) if old else [])
            verify_consistency(SHA256, head(old), head(size), proof)


def test_proofs_from_a_list_of_leaves_are_the_same() -> None:
    for size in (*range(1, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257, MOST):
        for at in sorted({*range(0, size, 1 + size // 16), size - 1}):
            assert merkle.inclusion_proof(SHA256, LEAVES[:size], at) == path(at, 0, size)
            if at:
                assert merkle.consistency_proof(SHA256, LEAVES[:size], at) == subproof(at, 0, size, True)


# --- spoiled proofs ----------------------------------------------------------------------------------------------------------


def flipped(node: bytes, bit: int) -> bytes:
    return (int.from_bytes(node, "big") ^ 1 << bit % 256).to_bytes(32, "big")


def spoiled(proof: list[bytes], chance: random.Random) -> Iterator[list[bytes]]:
    """Each hash changed in a bit, left out, doubled, exchanged with the next, their border moved; one too many; none."""
    for at, node in enumerate(proof):
        yield [*proof[:at], flipped(node, chance.randrange(256)), *proof[at + 1 :]]
        yield proof[:at] + proof[at + 1 :]
        yield [*proof[:at], node, *proof[at:]]
        if at + 1 < len(proof):
            after = proof[at + 1]
            yield [*proof[:at], after, node, *proof[at + 2 :]]
            yield [*proof[:at], node + after[:1], after[1:], *proof[at + 2 :]]
            yield [*proof[:at], node[:-1], node[-1:] + after, *proof[at + 2 :]]
        yield [*proof[:at], node[:-1], *proof[at + 1 :]]
    yield [bytes(32), *proof]
    yield [*proof, bytes(32)]
    if proof:
        yield []


def includes(size: int, root: bytes, index: int, leaf: bytes, proof: list[bytes]) -> bool:
    try:
        verify_inclusion(SHA256, TreeHead(size, root), index, leaf, proof)
    except LedgerConflict:
        return False
    return True


def follows(old: TreeHead, new: TreeHead, proof: list[bytes]) -> bool:
    try:
        verify_consistency(SHA256, old, new, proof)
    except LedgerConflict:
        return False
    return True


SAMPLED = (*range(1, 18), 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, MOST)


def sampled(size: int, chance: random.Random) -> list[int]:
    """Some indexes of a tree: all of a small one."""
    return sorted({0, size - 1, *(chance.randrange(size) for _ in range(17))})


def test_no_spoiled_inclusion_proof_passes() -> None:
    chance = random.Random(1)
    for size in SAMPLED:
        for index in sampled(size, chance):
            proof, (_, root), leaf = path(index, 0, size), (size, mth(0, size)), LEAVES[index]
            assert includes(size, root, index, leaf, proof)
            assert not any(includes(size, root, index, leaf, each) for each in spoiled(proof, chance))
            assert not includes(size, flipped(root, chance.randrange(256)), index, leaf, proof)
            assert not includes(size, root, index, flipped(leaf, chance.randrange(256)), proof)
            others = {0, size - 1, size, -1, index + 1, index - 1, index ^ 1, index ^ 2, chance.randrange(size)} - {
                index
            }
            assert not any(includes(size, root, other, leaf, proof) for other in others)
            assert not any(
                includes(other, root, index, leaf, proof) for other in (0, index, size // 2, 2 * size + 1, -1)
            )


def way_up(index: int, size: int) -> list[bool]:
    """On which side the sibling stands, from the leaf up to the root."""
    if size <= 1:
        return []
    k = half(size)
    return [*way_up(index, k), False] if index < k else [*way_up(index - k, size - k), True]


def test_another_size_passes_only_where_the_way_up_is_the_same() -> None:
    """An inclusion proof does not bind the tree's size; the checkpoint's signature does, over size and root together."""
    for size in range(1, 40):
        for index in range(size):
            proof = path(index, 0, size)
            for other in range(index + 1, 50):
                same = way_up(index, other) == way_up(index, size)
                assert includes(other, mth(0, size), index, LEAVES[index], proof) == same


def test_no_spoiled_consistency_proof_passes() -> None:
    chance = random.Random(2)
    for size in SAMPLED[1:]:
        for old_size in sampled(size, chance):
            if not old_size:
                continue
            old, new, proof = head(old_size), head(size), subproof(old_size, 0, size, True)
            assert follows(old, new, proof)
            assert not any(follows(old, new, each) for each in spoiled(proof, chance))
            assert not follows(TreeHead(old_size, flipped(old.root, chance.randrange(256))), new, proof)
            assert not follows(old, TreeHead(size, flipped(new.root, chance.randrange(256))), proof)
            assert not follows(new, old, proof)
            assert not follows(TreeHead(old_size, new.root), new, proof)
            assert not follows(old, TreeHead(size, old.root), proof)
            for wrong_old in {old_size - 1, old_size + 1, old_size ^ 2, -1} - {size, 0}:
                assert not follows(TreeHead(wrong_old, old.root), new, proof), (wrong_old, old_size, size)
            for wrong_new in {2 * size, size // 2, -1} - {old_size}:
                assert not follows(old, TreeHead(wrong_new, new.root), proof), (old_size, size, wrong_new)


def test_a_history_that_was_rewritten_before_the_old_size_has_no_proof() -> None:
    """Whoever rewrote an entry can offer the honest proofs and those of the rewritten tree; neither leads to both roots."""
    for size, old_size, changed in ((7, 4, 2), (64, 33, 32), (100, 64, 0), (300, 257, 256)):
        other = StoredTree(SHA256, MemoryNodes())
        for number in range(size):
            other.append(LEAVES[number] if number != changed else flipped(LEAVES[number], 5))
        for proof in (subproof(old_size, 0, size, True), other.consistency_proof(old_size, size)):
            assert not follows(head(old_size), other.head(size), proof)
            assert not follows(other.head(old_size), head(size), proof)


# --- one tree for entries and chunks -----------------------------------------------------------------------------------------


def test_blake3_of_nothing_is_the_published_digest_and_names_an_empty_blob() -> None:
    published = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest.root_of("blake3", []).hex() == published
    assert digest.root_of("sha256", []) == SHA256().digest()


def test_a_blobs_chunks_are_hashed_into_the_same_tree_with_another_function() -> None:
    def defined(leaves: list[bytes]) -> bytes:
        if len(leaves) < 2:
            return leaves[0] if leaves else blake3().digest()
        k = half(len(leaves))
        return blake3(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()

    for size in range(70):
        leaves = [digest.leaf("blake3", entry) for entry in ENTRIES[:size]]
        assert leaves == [blake3(b"\x00" + entry).digest() for entry in ENTRIES[:size]]
        assert digest.root_of("blake3", leaves) == defined(leaves)
        assert digest.root_of("sha256", LEAVES[:size]) == head(size).root


def test_the_prefixes_of_leaves_and_nodes_stand_in_one_module() -> None:
    """So there is one code for both trees: nobody else could hash a leaf or a node."""
    prefixes = {
        (path.relative_to(ROOT).as_posix(), node.value)
        for package in ("common", "coordinator", "participant", "llmasos")
        for path in (ROOT / package).rglob("*.py")
        if "wire/v1" not in path.as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in (b"\x00", b"\x01")
    }
    assert prefixes == {("common/ledger/merkle.py", b"\x00"), ("common/ledger/merkle.py", b"\x01")}
