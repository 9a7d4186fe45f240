"""Receipts: from any entry of any small ledger, and none that was altered."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadSignature, LedgerConflict, MalformedStatement, RefusalError
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead, inclusion_proof, leaf_hash, root
from common.ledger.notes import Note, NoteKey, checkpoint_text, sign_note
from common.ledger.receipts import Receipt, parse_receipt, verify_receipt

ORIGIN = "hospitals.llmasos/ledger"
LOG = SigningKey.generate()
LOG_KEY = NoteKey(ORIGIN, LOG.public)
ENTRIES = [f"envelope {number}".encode() for number in range(33)]
LEAVES = [leaf_hash(hashlib.sha256, entry) for entry in ENTRIES]


def receipt(index: int, size: int) -> Receipt:
    leaves = LEAVES[:size]
    head = TreeHead(size, root(hashlib.sha256, leaves))
    note = sign_note(Note(checkpoint_text(ORIGIN, head)), ORIGIN, LOG)
    return Receipt(index, tuple(inclusion_proof(hashlib.sha256, leaves, index)), note)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 21, 33])
def test_every_entry_of_a_ledger_has_a_receipt(size: int) -> None:
    for index in range(size):
        found = parse_receipt(receipt(index, size).encode())
        assert found == receipt(index, size)
        assert verify_receipt(found, ENTRIES[index], LOG_KEY).size == size


def test_a_receipt_is_for_its_entry_and_its_log_only() -> None:
    one = receipt(5, 21)
    with pytest.raises(LedgerConflict, match="leads to root"):
        verify_receipt(one, ENTRIES[6], LOG_KEY)
    with pytest.raises(BadSignature):
        verify_receipt(one, ENTRIES[5], NoteKey(ORIGIN, SigningKey.generate().public))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_passes(data: st.DataObject) -> None:
    whole = bytearray(receipt(5, 21).encode())
    position = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[position // 8] ^= 1 << position % 8
    with pytest.raises(RefusalError):
        verify_receipt(parse_receipt(bytes(whole)), ENTRIES[5], LOG_KEY)


GOOD = receipt(5, 21).encode()
MALFORMED = {
    "nothing": b"",
    "another header": GOOD.replace(b"@v1", b"@v2"),
    "a leading zero": GOOD.replace(b"index 5", b"index 05"),
    "no index": GOOD.replace(b"index 5\n", b""),
    "extra data": GOOD.replace(b"index 5", b"extra AAAA\nindex 5"),
    "a short hash": GOOD.replace(b"index 5\n", b"index 5\nAAAA\n"),
    "no checkpoint": GOOD.partition(b"\n\n")[0] + b"\n\n",
}


@pytest.mark.parametrize("claim", MALFORMED)
def test_what_is_no_receipt_is_refused(claim: str) -> None:
    with pytest.raises(MalformedStatement):
        parse_receipt(MALFORMED[claim])
