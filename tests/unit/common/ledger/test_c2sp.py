"""Our notes, checkpoints, cosignatures and receipts, read by C2SP's texts alone; and published ones, read by ours."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import BadSignature, RefusalError
from common.identity.keys import SigningKey
from common.ledger.merkle import TreeHead, leaf_hash, verify_consistency
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
)
from common.ledger.receipts import Receipt, parse_receipt, verify_receipt
from common.ledger.tree import MemoryNodes, StoredTree
from common.statements.kinds import PublicKey
from tests.support import c2sp

SHA256 = hashlib.sha256
ORIGIN = "hospitals.llmasos/ledger"
LOG, NORTH, SOUTH = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
LOG_KEY = NoteKey(ORIGIN, LOG.public)
ENTRIES = [f"envelope {number}".encode() for number in range(40)]
SECONDS = 1_795_324_800


def known(name: str, key: PublicKey, kind: int) -> c2sp.Verifier:
    return c2sp.Verifier(name, bytes.fromhex(key.public), kind)


LOG_VERIFIER = known(ORIGIN, LOG.public, 1)
WITNESSES = {
    name: known(f"hospitals.llmasos/{name}", key.public, 4) for name, key in (("north", NORTH), ("south", SOUTH))
}


def tree(size: int) -> StoredTree:
    made = StoredTree(SHA256, MemoryNodes())
    for entry in ENTRIES[:size]:
        made.append(leaf_hash(SHA256, entry))
    return made


def cosigned(head: TreeHead) -> Note:
    note = sign_note(Note(checkpoint_text(ORIGIN, head)), ORIGIN, LOG)
    for number, (name, key) in enumerate((("north", NORTH), ("south", SOUTH))):
        note = cosign(note, WITNESSES[name].name, key, seconds=SECONDS + number)
    return note


def receipt(index: int, size: int) -> bytes:
    made = tree(size)
    return Receipt(index, tuple(made.inclusion_proof(index, size)), cosigned(made.head())).encode()


# --- ours, read by the texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, COSIGNATURE])
def test_a_key_id_is_the_hash_of_name_newline_type_and_key(kind: int) -> None:
    name = "hospitals.llmasos/north"
    raw = name.encode() + b"\x0a" + bytes([kind]) + bytes.fromhex(NORTH.public.public)
    assert NoteKey(name, NORTH.public, kind).id == known(name, NORTH.public, kind).key_id == SHA256(raw).digest()[:4]


def test_a_checkpoint_of_ours_is_read_by_the_text() -> None:
    head = tree(21).head()
    note = cosigned(head).encode()
    assert c2sp.checkpoint(note, LOG_VERIFIER) == (head.size, head.root)
    assert [c2sp.cosigned_at(note, WITNESSES[name]) for name in ("north", "south")] == [SECONDS, SECONDS + 1]
    other = known(ORIGIN, SigningKey.generate().public, 1)
    with pytest.raises(c2sp.Refused, match="not signed"):
        c2sp.checkpoint(note, other)


def test_a_cosignatures_bytes_are_time_and_signature_over_the_texts_message() -> None:
    note = cosigned(tree(3).head())
    (line,) = (each for each in note.signatures if each.name.endswith("/north"))
    assert (len(line.signature), int.from_bytes(line.signature[:8], "big")) == (72, SECONDS)
    message = f"cosignature/v1\ntime {SECONDS}\n{note.text}".encode()
    WITNESSES["north"].verify(line.signature[8:], message)
    for other in (message[:-1], message.replace(b"v1", b"v2"), note.text.encode()):
        with pytest.raises(c2sp.Refused):
            WITNESSES["north"].verify(line.signature[8:], other)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 21, 40])
def test_a_receipt_of_ours_is_verified_by_the_text(size: int) -> None:
    for index in range(size):
        assert c2sp.included(receipt(index, size), ENTRIES[index], LOG_VERIFIER) == (index, size)
        with pytest.raises(c2sp.Refused, match="inclusion"):
            c2sp.included(receipt(index, size), b"another envelope", LOG_VERIFIER)


RECEIPT = receipt(5, 21)


@settings(max_examples=300)
@given(st.data())
def test_what_we_accept_of_a_changed_receipt_the_text_accepts_too(data: st.DataObject) -> None:
    """Lines exchanged, doubled, left out: where ours finds nothing wrong, the other does not either and reads the same."""
    lines = RECEIPT.split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at, to = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["exchange", "double", "drop", "replace"]))
        if change == "exchange":
            lines[at], lines[to] = lines[to], lines[at]
        elif change == "double":
            lines.insert(to, lines[at])
        elif change == "replace":
            lines[at] = data.draw(
                st.sampled_from([b"", b"index 4", b"index 6", b"20", b"22", b"extra AAAA", lines[to]])
            )
        elif len(lines) > 1:
            del lines[at]
    changed = b"\n".join(lines)
    try:
        head = verify_receipt(parse_receipt(changed), ENTRIES[5], LOG_KEY)
    except RefusalError:
        return
    assert c2sp.included(changed, ENTRIES[5], LOG_VERIFIER) == (5, head.size)


# --- published ones, read by ours --------------------------------------------------------------------------------------------

# C2SP signed-note, the example under its title; its key is not published.
QUASIMODO = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "\u2014 quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()
# C2SP tlog-cosignature, the example under its title; the keys are not published.
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZ"
    "qhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()
# transparency-dev/witness, its tests' log: a key, two checkpoints that Go signed, and the proof from 5 to 8.
MONKEYS = "monkeys+db4d9f7e+AULaJMvTtDLHPUcUrjdDad9vDlh/PTfC2VV60JUtCfWT"
MONKEYS_5 = (
    "monkeys\n5\n41smjBUiAU70EtKlT6lIOIYtRTYxYXsDB+XHfcvu/BE=\n\n"
    "\u2014 monkeys 202fftzGl3LVoqjXfwCFZZXs8I+5G22+Ek2K0AOyBuSJ/8/CZawNF+6fNlTKOCd622pbzJNkkJFWuw9DbicZCkEx9AY=\n"
).encode()
MONKEYS_8 = (
    "monkeys\n8\nV8K9aklZ4EPB+RMOk1/8VsJUdFZR77GDtZUQq84vSbo=\n\n"
    "\u2014 monkeys 202ffoUEboiQYpHzICeaFmoy3RNviHTpAxYrq/eO4QQVQMvu9UebKBMX2MJC76NLthZaKsnKbCA8GxrjePZhvDCH7Ag=\n"
).encode()
MONKEYS_PROOF = [
    "b9e1d62618f7fee8034e4c5010f727ab24d8e4705cb296c374bf2025a87a10d2",
    "aac66cd7a79ce4012d80762fe8eec3a77f22d1ca4145c3f4cee022e7efcd599d",
    "89d0f753f66a290c483b39cd5e9eafb12021293395fad3d4a2ad053cfbcfdc9e",
    "29e40bb79c966f4c6fe96aff6f30acfce5f3e8d84c02215175d6e018a5dee833",
]


def note_key(vkey: str) -> NoteKey:
    found = c2sp.verifier(vkey)
    return NoteKey(found.name, PublicKey(scheme="ed25519", public=found.public.hex()), found.kind)


@pytest.mark.parametrize(
    "note", [QUASIMODO, SOFA, MONKEYS_5, MONKEYS_8], ids=["poem", "sofa", "monkeys 5", "monkeys 8"]
)
def test_published_notes_are_read_and_written_as_they_are(note: bytes) -> None:
    parsed = parse_note(note)
    assert parsed.encode() == note
    text, signatures = c2sp.split_note(note)
    assert (parsed.text, [(each.name, each.key_id, each.signature) for each in parsed.signatures]) == (text, signatures)


def test_a_published_cosignature_has_the_time_of_the_specifications_message() -> None:
    (line,) = (each for each in parse_note(SOFA).signatures if each.name == "witness.example.com/w1")
    assert int.from_bytes(line.signature[:8], "big") == 1_679_315_147


def test_checkpoints_of_another_implementation_and_the_proof_between_them_verify() -> None:
    key = note_key(MONKEYS)
    five, eight = (read_checkpoint(parse_note(note), key) for note in (MONKEYS_5, MONKEYS_8))
    assert (five.size, eight.size) == (5, 8)
    verify_consistency(SHA256, five, eight, [bytes.fromhex(node) for node in MONKEYS_PROOF])
    with pytest.raises(BadSignature):
        read_checkpoint(parse_note(MONKEYS_5.replace(b"\n5\n", b"\n6\n")), key)


# --- whatever is accepted has one spelling, and no changed bit passes --------------------------------------------------------

letters = st.characters(exclude_characters="\n", exclude_categories=["Cs", "Cc"])
names = st.text(letters.filter(lambda character: not character.isspace() and character != "+"), min_size=1, max_size=12)
texts = st.lists(st.text(letters, max_size=12), min_size=1, max_size=6).map(lambda lines: "\n".join(lines) + "\n")
lines = st.tuples(names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=90))


@settings(max_examples=300)
@given(texts.filter(lambda text: text.strip("\n")), st.lists(lines, min_size=1, max_size=20))
def test_every_note_by_the_grammar_is_read_as_it_was_written(
    text: str, signatures: list[tuple[str, bytes, bytes]]
) -> None:
    encoded = [f"\u2014 {name} {base64.b64encode(key_id + raw).decode()}\n" for name, key_id, raw in signatures]
    whole = (text + "\n" + "".join(encoded)).encode()
    parsed = parse_note(whole)
    assert (parsed.text, [(each.name, each.key_id, each.signature) for each in parsed.signatures]) == (text, signatures)
    assert parsed.encode() == whole


PIECES = [b"\n", b"\n\n", b"\xe2\x80\x94 ", b"a", b" ", b"+", b"=", b"AAAAAAA=", b"AAAAAAAA", b"\x00", b"\r", b"\xff"]
pieces = st.sampled_from(PIECES)
noise = st.lists(pieces | st.binary(max_size=4), max_size=14).map(b"".join)


@settings(max_examples=500)
@given(noise, st.sampled_from([QUASIMODO, SOFA, MONKEYS_5, b""]), st.integers(0, 400), st.integers(0, 20))
def test_whatever_is_accepted_as_a_note_is_spelled_as_we_would(
    extra: bytes, good: bytes, at: int, left_out: int
) -> None:
    data = good[:at] + extra + good[at + left_out :]
    try:
        parsed = parse_note(data)
    except RefusalError:
        return
    assert parsed.encode() == data
    assert c2sp.split_note(data)[0] == parsed.text


@settings(max_examples=500)
@given(noise, st.integers(0, len(RECEIPT)), st.integers(0, 60))
def test_whatever_is_accepted_as_a_receipt_is_spelled_as_we_would(extra: bytes, at: int, left_out: int) -> None:
    data = RECEIPT[:at] + extra + RECEIPT[at + left_out :]
    try:
        parsed = parse_receipt(data)
    except RefusalError:
        return
    assert parsed.encode() == data


def passes(data: bytes) -> bool:
    """Whether anything of a receipt with two cosignatures still verifies as it did."""
    try:
        found = parse_receipt(data)
        verify_receipt(found, ENTRIES[5], LOG_KEY)
        for name, key in (("north", NORTH), ("south", SOUTH)):
            verify_cosignature(found.checkpoint, NoteKey(WITNESSES[name].name, key.public, COSIGNATURE))
    except RefusalError:
        return False
    return True


def test_no_single_changed_bit_of_a_cosigned_receipt_passes() -> None:
    assert passes(RECEIPT)
    for bit in range(8 * len(RECEIPT)):
        changed = bytearray(RECEIPT)
        changed[bit // 8] ^= 1 << bit % 8
        assert not passes(bytes(changed)), f"bit {bit % 8} of byte {bit // 8}"
