"""Receipts: C2SP tlog-proofs, pure. A file that shows, without a network, that an entry is in a ledger which witnesses saw.

    c2sp.org/tlog-proof@v1
    index 17
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=         the siblings from the entry up to the root
    …
                                                         a blank line
    hospitals.llmasos/ledger                             a checkpoint, with all its signatures
    …

Source: c2sp.org/tlog-proof; RFC 6962 section 2.1.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from common.errors import MalformedStatement
from common.ledger.merkle import HASH_BYTES, TreeHead, leaf_hash, verify_inclusion
from common.ledger.notes import MAX_NOTE_BYTES, Note, NoteKey, parse_note, read_checkpoint

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_HASHES = 64
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An entry's index, its inclusion proof, and the checkpoint that the proof leads to."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: Note

    def encode(self) -> bytes:
        """The receipt as a file."""
        hashes = "".join(base64.b64encode(each).decode() + "\n" for each in self.proof)
        return f"{HEADER}\nindex {self.index}\n{hashes}\n".encode() + self.checkpoint.encode()


def parse_receipt(data: bytes) -> Receipt:
    """A receipt in its one spelling; nothing in it is believed until `verify_receipt`.

    Raises:
        MalformedStatement: it is none, or carries extra data, which nothing here authenticates.
    """
    head, blank, checkpoint = data[: 2 * MAX_NOTE_BYTES].partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    index = _INDEX.fullmatch(lines[1]) if len(lines) > 1 else None
    if not blank or lines[0] != HEADER or index is None or len(lines) - 2 > MAX_PROOF_HASHES:
        raise MalformedStatement(f"A receipt does not begin with {HEADER} and an index.")
    receipt = Receipt(int(index[1]), tuple(_hash(line) for line in lines[2:]), parse_note(checkpoint))
    if receipt.encode() != data:
        raise MalformedStatement("A receipt is not spelled in the one way that it can be.")
    return receipt


def verify_receipt(receipt: Receipt, entry: bytes, log: NoteKey) -> TreeHead:
    """Check that `entry` (an envelope's bytes) is in the ledger that the receipt's checkpoint names.

    Raises:
        BadSignature, MalformedStatement: the checkpoint is not the log's.
        LedgerConflict: the proof does not lead from the entry to the checkpoint's root.
    """
    head = read_checkpoint(receipt.checkpoint, log)
    verify_inclusion(hashlib.sha256, head, receipt.index, leaf_hash(hashlib.sha256, entry), receipt.proof)
    return head


def _hash(line: str) -> bytes:
    try:
        found = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as err:
        raise MalformedStatement("A receipt's proof is not base64.") from err
    if len(found) != HASH_BYTES:
        raise MalformedStatement(f"A receipt's proof holds {len(found)} bytes in a line, expected {HASH_BYTES}.")
    return found
