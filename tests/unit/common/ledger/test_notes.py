"""Notes, checkpoints, cosignatures: other implementations' vectors, and every bit of them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadSignature, MalformedStatement, StatementError
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead
from common.ledger.notes import (
    COSIGNATURE,
    Note,
    NoteKey,
    checkpoint_text,
    cosign,
    parse_note,
    read_checkpoint,
    sign_note,
    verify_cosignature,
    verify_note,
)
from common.statements.kinds import PublicKey

# The example of Go's golang.org/x/mod/sumdb/note: a verifier key and a note under it.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
ORIGIN = "hospitals.llmasos/ledger"
HEAD = TreeHead(41, bytes(range(32)))
LOG, NORTH = SigningKey.generate(), SigningKey.generate()
LOG_KEY, NORTH_KEY = NoteKey(ORIGIN, LOG.public), NoteKey("hospitals.llmasos/north", NORTH.public, COSIGNATURE)


def go_key() -> NoteKey:
    name, _, encoded = GO_KEY.split("+", 2)
    public = base64.b64decode(encoded)
    assert public[0] == 1
    return NoteKey(name, PublicKey(scheme="ed25519", public=public[1:].hex()))


def checkpoint(head: TreeHead = HEAD) -> Note:
    signed = sign_note(Note(checkpoint_text(ORIGIN, head)), ORIGIN, LOG)
    return cosign(signed, NORTH_KEY.name, NORTH, seconds=1_763_800_000)


def read_twice(encoded: bytes) -> tuple[TreeHead, int]:
    """What the log and what the witness say."""
    note = parse_note(encoded)
    return read_checkpoint(note, LOG_KEY), verify_cosignature(note, NORTH_KEY)


def test_the_note_of_another_implementation_is_verified() -> None:
    key = go_key()
    assert key.id.hex() == GO_KEY.split("+")[1]
    note = parse_note(GO_NOTE)
    verify_note(note, key)
    assert note.encode() == GO_NOTE


def test_a_checkpoint_is_read_by_the_logs_key_alone() -> None:
    note = parse_note(checkpoint().encode())
    assert read_checkpoint(note, LOG_KEY) == HEAD
    with pytest.raises(BadSignature, match=r"not signed by hospitals\.llmasos/ledger with the key that is known of it"):
        read_checkpoint(note, NoteKey(ORIGIN, NORTH.public))


def test_a_cosignature_says_when() -> None:
    assert verify_cosignature(checkpoint(), NORTH_KEY) == 1_763_800_000
    with pytest.raises(BadSignature):
        verify_cosignature(checkpoint(), NoteKey(NORTH_KEY.name, NORTH.public))  # of the other type


def test_signing_again_replaces_and_others_stay() -> None:
    note = cosign(checkpoint(), NORTH_KEY.name, NORTH, seconds=1_763_800_060)
    assert len(note.signatures) == 2
    assert verify_cosignature(note, NORTH_KEY) == 1_763_800_060
    verify_note(note, LOG_KEY)


def test_a_signature_of_a_known_key_that_fails_spoils_the_note() -> None:
    good = checkpoint()
    moved = Note(checkpoint_text(ORIGIN, TreeHead(42, HEAD.root)), good.signatures)
    for verify in (lambda: verify_note(moved, LOG_KEY), lambda: verify_cosignature(moved, NORTH_KEY)):
        with pytest.raises(BadSignature):
            verify()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_flipped_bit_passes(data: st.DataObject) -> None:
    whole = bytearray(checkpoint().encode())
    position = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[position // 8] ^= 1 << position % 8
    with pytest.raises(StatementError):
        read_twice(bytes(whole))


MALFORMED = {
    "nothing": b"",
    "no signature": b"text\n\n",
    "no blank line": b"text\n",
    "no text": b"\n\n\xe2\x80\x94 a AAAAAAAA\n",
    "a control character": GO_NOTE.replace(b"think", b"th\x1bnk"),
    "a carriage return": GO_NOTE.replace(b"\n", b"\r\n"),
    "not UTF-8": GO_NOTE.replace(b"think", b"\xff"),
    "no newline at its end": GO_NOTE[:-1],
    "a hyphen for the dash": GO_NOTE.replace(b"\xe2\x80\x94", b"-"),
    "a name with a plus": GO_NOTE.replace(b" PeterNeumann", b" Peter+Neumann"),
    "a signature of no bytes": b"text\n\n\xe2\x80\x94 a AAAAAA==\n",
    "base64 in another spelling": GO_NOTE.replace(b"wJnAM=", b"wJnAN="),
    "too long": b"x" * 300_000,
}


@pytest.mark.parametrize("claim", MALFORMED)
def test_what_is_no_note_is_refused(claim: str) -> None:
    with pytest.raises(MalformedStatement, match=r"^A note"):
        parse_note(MALFORMED[claim])


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n41\n",
        f"{ORIGIN}\n041\n{'A' * 43}=\n",
        f"{ORIGIN}\n-1\n{'A' * 43}=\n",
        f"{ORIGIN}\n41\n{'A' * 40}\n",
        f"{ORIGIN}\n41\nnot base64\n",
        f"{ORIGIN}\n41\n{'A' * 43}=\nextension\n",
        f"another.log\n41\n{'A' * 43}=\n",
    ],
)
def test_what_is_no_checkpoint_of_this_log_is_refused_though_signed(text: str) -> None:
    with pytest.raises(MalformedStatement, match="checkpoint"):
        read_checkpoint(sign_note(Note(text), ORIGIN, LOG), LOG_KEY)
