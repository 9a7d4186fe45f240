"""A ledger's tree and its log: heads of every size, checkpoints signed and held against it, receipts for every entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from common.errors import BadSignature, LedgerConflict, MalformedStatement
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead, leaf_hash
from common.ledger.notes import Note, NoteKey, checkpoint_text, parse_note, read_checkpoint, sign_note
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


def expect_seen(checkpoint: str, log: NoteKey, tree: StoredTree, opening: int) -> TreeHead:
    """The head that a contribution says its institution had seen, when it is one of this ledger that holds the round's opening.

    Raises:
        LedgerConflict: it is no checkpoint of this log, or of another ledger, or older than the opening.
    """
    try:
        note = parse_note(checkpoint.encode())
        head = read_checkpoint(note, log)
    except (MalformedStatement, BadSignature) as err:
        raise LedgerConflict(f"The contribution's checkpoint is none of {log.name}: {err.message}") from err
    what = f"The contribution's checkpoint of {head.size} entries"
    if len(note.signatures) != 1:  # a further line may say anything, and nothing that leaves an institution may
        raise LedgerConflict(f"{what} bears {len(note.signatures)} signatures, expected the log's alone.")
    if head.size > tree.size:
        raise LedgerConflict(f"{what} is beyond this ledger, which has {tree.size}.")
    own = tree.head(head.size).root
    if head.root != own:
        raise LedgerConflict(f"{what} has root {head.root.hex()}, expected {own.hex()}.")
    if head.size <= opening:
        raise LedgerConflict(f"{what} does not hold the round's opening, which is entry {opening}.")
    return head
