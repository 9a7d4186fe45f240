"""A ledger's tree from its envelopes, in memory: heads of every size, receipts for every entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from common.identity.keys import SigningKey
from common.ledger.merkle import leaf_hash
from common.ledger.notes import Note, NoteKey, checkpoint_text, sign_note
from common.ledger.receipts import Receipt
from common.ledger.tree import MemoryNodes, StoredTree
from common.statements.kinds import Genesis


def tree_of(envelopes: Iterable[bytes]) -> StoredTree:
    """The RFC 6962 tree whose leaves are envelopes, from index 0 on."""
    tree = StoredTree(hashlib.sha256, MemoryNodes())
    for envelope in envelopes:
        tree.append(leaf_hash(hashlib.sha256, envelope))
    return tree


def log_key(genesis: Genesis) -> NoteKey:
    """The key that signs this ledger's checkpoints, under its origin."""
    return NoteKey(genesis.log.origin, genesis.log.key)


def signed_checkpoint(tree: StoredTree, genesis: Genesis, key: SigningKey) -> Note:
    """A checkpoint of the whole tree. Who signs it promises never to sign one that does not follow from it."""
    return sign_note(Note(checkpoint_text(genesis.log.origin, tree.head())), genesis.log.origin, key)


def receipt_of(tree: StoredTree, index: int, checkpoint: Note, size: int) -> Receipt:
    """The proof that entry `index` is in the tree of `size` entries that `checkpoint` names.

    Raises:
        IndexError: it came later, or the tree here is shorter.
    """
    return Receipt(index, tuple(tree.inclusion_proof(index, size)), checkpoint)
