"""C2SP signed notes, checkpoints and cosignatures, pure (docs/protocol.md#checkpoints).

    hospitals.llmasos/ledger                             origin
    41                                                   entries in the tree
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=         their RFC 6962 root
                                                         a blank line ends the text
    — hospitals.llmasos/ledger Az3grlgtzPI…              the log's signature
    — hospitals.llmasos/north jWbPPwAAAAB…               a witness's, with a time

A note says nothing until a signature by a key that the reader knew before was verified: `verify_note` takes that key, and
signatures of others are passed over, as the specification demands.

Source: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature (Ed25519).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from common.errors import BadSignature, MalformedStatement
from common.identity.keys import SigningKey, verify_raw
from common.ledger.merkle import HASH_BYTES, TreeHead
from common.statements.kinds import PublicKey

MAX_NOTE_BYTES = 256 * 1024
MAX_SIGNATURES = 1024
NOTE_SIGNATURE, COSIGNATURE = 0x01, 0x04
"""Signature types: Ed25519 over the text; Ed25519 with a time, by a witness."""
_ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 4, 8, 64
_DASH = "\u2014 "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: whose, by the four bytes that hint at the key, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and its signatures in their order."""

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    def encode(self) -> bytes:
        """The note as it travels."""
        lines = (
            f"{_DASH}{each.name} {base64.b64encode(each.key_id + each.signature).decode()}\n"
            for each in self.signatures
        )
        return (self.text + "\n" + "".join(lines)).encode()

    def with_signature(self, signature: NoteSignature) -> Note:
        """This note with one signature more; one by the same name and key id gives way to it."""
        kept = (each for each in self.signatures if (each.name, each.key_id) != (signature.name, signature.key_id))
        return replace(self, signatures=(*kept, signature))


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key that a reader knows by name: the log's, or a witness's with type COSIGNATURE."""

    name: str
    key: PublicKey
    kind: int = NOTE_SIGNATURE

    @property
    def id(self) -> bytes:
        """SHA-256(name ‖ newline ‖ type ‖ public key), its first four bytes."""
        return _key_id(self.name, self.kind, self.key.public)


@lru_cache(maxsize=1024)
def _key_id(name: str, kind: int, public: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(public)).digest()[:_ID_BYTES]


def parse_note(data: bytes) -> Note:
    """A note in its one spelling: it encodes to the very same bytes.

    Raises:
        MalformedStatement: it is none; nothing of it is repeated but lengths and positions.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedStatement(f"A note has {len(data):,} bytes, at most {MAX_NOTE_BYTES:,} allowed.")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise MalformedStatement(f"A note is not UTF-8 at byte {err.start}.") from err
    text, blank, tail = whole.rpartition("\n\n")
    lines = tail.split("\n")
    if _CONTROL.search(whole) or not text or not blank or lines.pop() != "" or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise MalformedStatement("A note has no text, a blank line and signature lines, or has control characters.")
    note = Note(text + "\n", tuple(_signature_line(line) for line in lines))
    if note.encode() != data:
        raise MalformedStatement("A note is not spelled in the one way that it can be.")
    return note


def _signature_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as err:
        raise MalformedStatement("A note's signature line is not base64.") from err
    if not line.startswith(_DASH) or not space or not _NAME.fullmatch(name) or len(raw) <= _ID_BYTES:
        raise MalformedStatement("A note's signature line is not a dash, a name and a signature.")
    return NoteSignature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def sign_note(note: Note, name: str, key: SigningKey) -> Note:
    """The note with an Ed25519 signature over its text."""
    signature = key.sign(note.text.encode())
    return note.with_signature(NoteSignature(name, NoteKey(name, key.public).id, signature))


def verify_note(note: Note, known: NoteKey) -> None:
    """Check that a key signed this text; signatures of other names and keys count for nothing.

    Raises:
        BadSignature: there is no signature of that name and key, or one that does not verify.
    """
    for found in _signatures_of(note, known):
        _expect_signed(known.key.scheme, known.key.public, found.signature, note.text.encode())


def cosign(note: Note, name: str, key: SigningKey, *, seconds: int) -> Note:
    """The note with a witness's cosignature: at that time, in seconds since the epoch, this was the largest tree it saw."""
    stamped = seconds.to_bytes(_TIME_BYTES, "big")
    signature = stamped + key.sign(_cosigned_message(note.text, seconds))
    return note.with_signature(NoteSignature(name, NoteKey(name, key.public, COSIGNATURE).id, signature))


def verify_cosignature(note: Note, witness: NoteKey) -> int:
    """When a witness cosigned this note, in seconds since the epoch.

    Raises:
        BadSignature: it did not, or its signature does not verify.
    """
    times = []
    for found in _signatures_of(note, witness):
        if len(found.signature) != _TIME_BYTES + _SIGNATURE_BYTES:
            raise BadSignature(f"The cosignature of {witness.name} has {len(found.signature)} bytes, expected 72.")
        seconds = int.from_bytes(found.signature[:_TIME_BYTES], "big")
        if seconds >= 2**63:
            raise BadSignature(f"The cosignature of {witness.name} has a time beyond 2^63.")
        message = _cosigned_message(note.text, seconds)
        _expect_signed(witness.key.scheme, witness.key.public, found.signature[_TIME_BYTES:], message)
        times.append(seconds)
    return max(times)


def _cosigned_message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


@lru_cache(maxsize=1024)
def _expect_signed(scheme: Literal["ed25519", "x25519"], public: str, signature: bytes, message: bytes) -> None:
    """As verify_raw. What was verified stays verified: the same cosignatures come again with each note that bears them."""
    verify_raw(PublicKey(scheme=scheme, public=public), signature, message)


def _signatures_of(note: Note, known: NoteKey) -> list[NoteSignature]:
    found = [each for each in note.signatures if (each.name, each.key_id) == (known.name, known.id)]
    if not found:
        names = ", ".join(each.name for each in note.signatures[:8]) or "nobody"
        raise BadSignature(f"A note is not signed by {known.name} with the key that is known of it, but by {names}.")
    return found


# --- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoint_text(origin: str, head: TreeHead) -> str:
    """The text of a checkpoint: three lines, no extension."""
    return f"{origin}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def read_checkpoint(note: Note, log: NoteKey) -> TreeHead:
    """The tree that a checkpoint names, once the log's signature is verified.

    Raises:
        BadSignature: the log did not sign it.
        MalformedStatement: it is a checkpoint of another log, or none.
    """
    verify_note(note, log)
    origin = note.text.partition("\n")[0]
    if origin != log.name:
        raise MalformedStatement(f"A checkpoint is of log {origin!r}, expected {log.name!r}.")
    return named_head(note)


def named_head(note: Note, *, least: int = 0) -> TreeHead:
    """The tree that a checkpoint's text names, whoever signed it.

    Raises:
        MalformedStatement: the text is no checkpoint's, or of fewer than `least` entries.
    """
    lines = note.text.split("\n")
    if len(lines) != 4 or not _SIZE.fullmatch(lines[1]) or int(lines[1]) < least:
        above = f" above {least - 1}" if least else ""
        raise MalformedStatement(
            f"A note's text is not an origin, a size{above} and a root, each on a line, as a checkpoint's is."
        )
    try:
        head = TreeHead(int(lines[1]), base64.b64decode(lines[2], validate=True))
    except (binascii.Error, ValueError) as err:
        raise MalformedStatement("A checkpoint's root is not base64.") from err
    if len(head.root) != HASH_BYTES or checkpoint_text(lines[0], head) != note.text:
        raise MalformedStatement(
            f"A checkpoint's root has {len(head.root)} bytes, expected {HASH_BYTES} in one spelling."
        )
    return head
