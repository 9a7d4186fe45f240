"""Checkpoints, cosigned notes and receipts in the C2SP formats. 1 byte chooses which.

What is taken encodes to the very same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead, leaf_hash
from common.ledger.notes import (
    COSIGNATURE,
    Note,
    NoteKey,
    checkpoint_text,
    cosign,
    named_head,
    parse_note,
    read_checkpoint,
    sign_note,
    verify_cosignature,
)
from common.ledger.receipts import Receipt, parse_receipt, verify_receipt
from tests.fuzz.harness import Target

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
LOG = NoteKey("hospitals.llmasos/ledger", KEY.public)
WITNESS = NoteKey("hospitals.llmasos/north", KEY.public, COSIGNATURE)
ENTRY = b"an envelope"


def entry(data: bytes) -> None:
    content = data[1:]
    match data[:1]:
        case b"n":
            note = parse_note(content)
            assert note.encode() == content
            named_head(note)
            read_checkpoint(note, LOG)
            verify_cosignature(note, WITNESS)
        case b"r":
            receipt = parse_receipt(content)
            assert receipt.encode() == content
            verify_receipt(receipt, ENTRY, LOG)


def seeds() -> list[bytes]:
    leaves = [leaf_hash(hashlib.sha256, ENTRY), leaf_hash(hashlib.sha256, b"another")]
    head = TreeHead(2, hashlib.sha256(b"\x01" + leaves[0] + leaves[1]).digest())
    note = sign_note(Note(checkpoint_text(LOG.name, head)), LOG.name, KEY)
    cosigned = cosign(note, WITNESS.name, KEY, seconds=1_800_000_000)
    other = replace(cosigned, text=checkpoint_text(LOG.name, TreeHead(0, bytes(32))))
    return [
        b"n" + note.encode(),
        b"n" + cosigned.encode(),
        b"n" + other.encode(),
        b"r" + Receipt(0, (leaves[1],), note).encode(),
    ]


TARGET = Target(entry, seeds(), max_bytes=16_384)
