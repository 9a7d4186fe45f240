"""C2SP notes, checkpoints, cosignatures and proofs, read by their texts alone: hashlib and `cryptography`, nothing of `common`.

Source: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature, c2sp.org/tlog-proof; RFC 9162 section 2.1.3.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Refused(Exception):
    """The text says that this must be refused."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key that somebody knows: by name, 32 bytes, and the byte of its signature type, 1 or 4."""

    name: str
    public: bytes
    kind: int

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + bytes([0x0A, self.kind]) + self.public).digest()[:4]

    def verify(self, signature: bytes, message: bytes) -> None:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature as err:
            raise Refused(f"signature of {self.name}") from err


def verifier(vkey: str) -> Verifier:
    """From `name+keyid+base64(type || key)`, as Go's note package writes it."""
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded)
    found = Verifier(name, raw[1:], raw[0])
    if found.key_id.hex() != key_id:
        raise Refused("key ID")
    return found


def split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text with its final newline, and name, key ID and signature of each line."""
    whole = note.decode("utf-8")
    if any(ord(character) < 0x20 and character != "\n" for character in whole):
        raise Refused("control character")
    at = whole.rfind("\n\n")
    if at < 0 or not whole.endswith("\n"):
        raise Refused("no blank line")
    signatures = []
    for line in whole[at + 2 : -1].split("\n"):
        dash, name, encoded = line.split(" ")
        if dash != "\u2014" or not name or "+" in name or any(character.isspace() for character in name):
            raise Refused("signature line")
        raw = base64.b64decode(encoded, validate=True)
        signatures.append((name, raw[:4], raw[4:]))
    return whole[: at + 1], signatures


def open_note(note: bytes, known: Verifier) -> str:
    """The text of a note that this key signed."""
    text, signatures = split_note(note)
    mine = [signature for name, key_id, signature in signatures if (name, key_id) == (known.name, known.key_id)]
    if not mine or known.kind != 1:
        raise Refused("not signed")
    for signature in mine:
        known.verify(signature, text.encode())
    return text


def cosigned_at(note: bytes, witness: Verifier) -> int:
    """When this witness cosigned it, in seconds since the epoch."""
    text, signatures = split_note(note)
    mine = [signature for name, key_id, signature in signatures if (name, key_id) == (witness.name, witness.key_id)]
    if len(mine) != 1 or witness.kind != 4:
        raise Refused("not cosigned")
    (timestamp,) = struct.unpack(">Q", mine[0][:8])
    witness.verify(mine[0][8:], b"cosignature/v1\n" + f"time {timestamp}\n".encode() + text.encode())
    return int(timestamp)


def checkpoint(note: bytes, log: Verifier) -> tuple[int, bytes]:
    """Size and root of a checkpoint of this log."""
    origin, size, root, *extensions = open_note(note, log).split("\n")
    if origin != log.name or extensions != [""] or str(int(size)) != size:
        raise Refused("checkpoint")
    return int(size), base64.b64decode(root, validate=True)


def included(proof: bytes, entry: bytes, log: Verifier) -> tuple[int, int]:
    """Index of this entry and size of the tree, by a tlog-proof."""
    head, blank, note = proof.partition(b"\n\n")
    magic, index, *path = head.decode("ascii").split("\n")
    if magic != "c2sp.org/tlog-proof@v1" or not index.startswith("index ") or not blank:
        raise Refused("proof")
    size, root = checkpoint(note, log)
    at = int(index.removeprefix("index "))
    hashes = [base64.b64decode(line, validate=True) for line in path]
    if not 0 <= at < size or root_by(at, size, hashlib.sha256(b"\x00" + entry).digest(), hashes) != root:
        raise Refused("inclusion")
    return at, size


def root_by(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root that an audit path leads to, from the top: one half holds the leaf, the other's hash is the path's last."""
    if size == 1:
        if path:
            raise Refused("too many hashes")
        return leaf
    if not path:
        raise Refused("too few hashes")
    k = 1 << (size - 1).bit_length() - 1
    if index < k:
        halves = root_by(index, k, leaf, path[:-1]) + path[-1]
    else:
        halves = path[-1] + root_by(index - k, size - k, leaf, path[:-1])
    return hashlib.sha256(b"\x01" + halves).digest()
