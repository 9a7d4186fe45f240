"""The RFC 6962 Merkle tree, pure: one code for the ledger's entries and a blob's chunks (docs/protocol.md#merkle).

    leaf(d)     = H(0x00 ‖ d)                      the two prefixes keep a leaf from passing as a node
    node(l, r)  = H(0x01 ‖ l ‖ r)
    root of 0   = H()
    root of n   = node(root of the first k, root of the others), k the largest power of two below n

    >>> root(hashlib.sha256, [leaf_hash(hashlib.sha256, entry) for entry in entries])

Source: RFC 6962 section 2.1; verification of proofs as in RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.errors import LedgerConflict

HASH_BYTES = 32
LEAF_PREFIX, NODE_PREFIX = b"\x00", b"\x01"

Bytes = bytes | bytearray | memoryview


class Hasher(Protocol):
    """What hashlib and blake3 have in common."""

    def update(self, data: Bytes, /) -> object: ...

    def digest(self) -> bytes: ...


HashFunction = Callable[[], Hasher]
"""Makes an empty hasher: `hashlib.sha256`, `blake3.blake3`."""


@dataclass(frozen=True, slots=True)
class TreeHead:
    """What a checkpoint says of a tree: how many leaves, and their root."""

    size: int
    root: bytes


def leaf_hasher(h: HashFunction) -> Hasher:
    """A hasher of one leaf: update it with the leaf's bytes, in as many pieces as they come."""
    hasher = h()
    hasher.update(LEAF_PREFIX)
    return hasher


def leaf_hash(h: HashFunction, data: Bytes) -> bytes:
    """H(0x00 ‖ data), without a copy of `data`."""
    hasher = leaf_hasher(h)
    hasher.update(data)
    return hasher.digest()


def node_hash(h: HashFunction, left: bytes, right: bytes) -> bytes:
    """H(0x01 ‖ left ‖ right)."""
    hasher = h()
    hasher.update(NODE_PREFIX + left + right)
    return hasher.digest()


class RunningRoot:
    """A tree that only grows, in O(log n) memory: the roots of its perfect subtrees, largest first."""

    def __init__(self, h: HashFunction) -> None:
        self._h = h
        self._subtrees: list[bytes] = []
        self.size = 0

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        carry = leaf
        completed = self.size
        while completed & 1:
            carry = node_hash(self._h, self._subtrees.pop(), carry)
            completed >>= 1
        self._subtrees.append(carry)
        self.size += 1

    def root(self, right: bytes | None = None) -> bytes:
        """The root over all leaves so far; with `right`, the root of what stands to their right, over both."""
        if not self._subtrees and right is None:
            return self._h().digest()
        result = self._subtrees[-1] if right is None else right
        for subtree in reversed(self._subtrees[:-1] if right is None else self._subtrees):
            result = node_hash(self._h, subtree, result)
        return result

    def copy(self) -> RunningRoot:
        """The same tree, which grows on its own from here."""
        made = RunningRoot(self._h)
        made._subtrees, made.size = self._subtrees.copy(), self.size
        return made


def root(h: HashFunction, leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes; of none, the hash of nothing."""
    tree = RunningRoot(h)
    for leaf in leaf_hashes:
        tree.append(leaf)
    return tree.root()


def inclusion_proof(h: HashFunction, leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from leaf `index` up to the root over all `leaf_hashes`.

    Raises:
        IndexError: there is no such leaf.

    Source: RFC 6962 section 2.1.1.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"leaf {index} of a tree of {len(leaf_hashes)}")
    if len(leaf_hashes) == 1:
        return []
    split = _split(len(leaf_hashes))
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    if index < split:
        return [*inclusion_proof(h, left, index), root(h, right)]
    return [*inclusion_proof(h, right, index - split), root(h, left)]


def verify_inclusion(h: HashFunction, head: TreeHead, index: int, leaf: bytes, proof: Sequence[bytes]) -> None:
    """Check that `leaf` is leaf `index` of the tree that `head` names.

    Raises:
        LedgerConflict: it is not, by this proof.
    """
    what = f"The proof that entry {index} is in the tree of {head.size} entries"
    if not 0 <= index < head.size:
        raise LedgerConflict(f"{what} is impossible: the last entry is {head.size - 1}.")
    position, last, result = index, head.size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise LedgerConflict(f"{what} has {len(proof)} hashes, which is too many.")
        if position & 1 or position == last:
            result = node_hash(h, sibling, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(h, result, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise LedgerConflict(f"{what} has {len(proof)} hashes, which is too few.")
    _expect_root(what, head, result)


def consistency_proof(h: HashFunction, leaf_hashes: Sequence[bytes], old_size: int) -> list[bytes]:
    """What shows that the tree of the first `old_size` leaves is a beginning of the tree of all.

    Raises:
        IndexError: there were never so many leaves.

    Source: RFC 6962 section 2.1.2; the proof from the empty tree is empty.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise IndexError(f"the first {old_size} leaves of a tree of {len(leaf_hashes)}")
    return _subproof(h, leaf_hashes, old_size, whole=True) if old_size else []


def _subproof(h: HashFunction, leaf_hashes: Sequence[bytes], old_size: int, *, whole: bool) -> list[bytes]:
    if old_size == len(leaf_hashes):
        return [] if whole else [root(h, leaf_hashes)]
    split = _split(len(leaf_hashes))
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    if old_size <= split:
        return [*_subproof(h, left, old_size, whole=whole), root(h, right)]
    return [*_subproof(h, right, old_size - split, whole=False), root(h, left)]


def verify_consistency(h: HashFunction, old: TreeHead, new: TreeHead, proof: Sequence[bytes]) -> None:
    """Check that the tree `old` is a beginning of the tree `new`.

    Raises:
        LedgerConflict: it is not, by this proof: somebody shows two histories, or the proof is damaged.
    """
    what = f"The proof that the tree of {old.size} entries begins the tree of {new.size}"
    if not 0 <= old.size <= new.size:
        raise LedgerConflict(f"{what} is impossible: a ledger never shrinks.")
    if old.size in (0, new.size):
        if proof:
            raise LedgerConflict(f"{what} has {len(proof)} hashes, expected none.")
        _expect_root(what, old, new.root if old.size else h().digest())
        return
    path = list(proof) if old.size & (old.size - 1) else [old.root, *proof]
    if not path:
        raise LedgerConflict(f"{what} has no hashes, which is too few.")
    _fold_consistency(h, (old, new), path, what)


def _fold_consistency(h: HashFunction, heads: tuple[TreeHead, TreeHead], path: list[bytes], what: str) -> None:
    old, new = heads
    position, last = old.size - 1, new.size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_root = new_root = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise LedgerConflict(f"{what} has {len(path)} hashes, which is too many.")
        if position & 1 or position == last:
            old_root, new_root = node_hash(h, sibling, old_root), node_hash(h, sibling, new_root)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_root = node_hash(h, new_root, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise LedgerConflict(f"{what} has {len(path)} hashes, which is too few.")
    _expect_root(what, old, old_root)
    _expect_root(what, new, new_root)


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _expect_root(what: str, head: TreeHead, computed: bytes) -> None:
    if computed != head.root:
        raise LedgerConflict(f"{what} leads to root {computed.hex()}, expected {head.root.hex()}.")
