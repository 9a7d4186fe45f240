"""Sigstore's client, another implementation of the same texts, agrees with our proofs, checkpoints and envelopes."""

from __future__ import annotations

import base64
import functools
import hashlib
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import LogCheckpoint, SignedCheckpoint, verify_checkpoint
from sigstore._internal.trust import Keyring, RekorKeyring
from sigstore.dsse import Envelope
from sigstore.dsse import Statement as SigstoreStatement
from sigstore.errors import VerificationError
from sigstore.models import TransparencyLogEntry
from sigstore_models.common import v1 as common_v1
from sigstore_models.rekor import v1 as rekor_v1

from common.identity.keys import SigningKey
from common.ledger.merkle import leaf_hash
from common.ledger.notes import Note, checkpoint_text, cosign, sign_note
from common.ledger.tree import MemoryNodes, StoredTree
from common.statements.envelope import Statement
from tests.support.statements import a_federation

ORIGIN = "hospitals.llmasos/ledger"
LOG, NORTH = SigningKey.generate(), SigningKey.generate()
MOST = 100
ENTRIES = [f"envelope {number}".encode() for number in range(MOST)]


@functools.cache
def tree() -> StoredTree:
    made = StoredTree(hashlib.sha256, MemoryNodes())
    for entry in ENTRIES:
        made.append(leaf_hash(hashlib.sha256, entry))
    return made


@functools.cache
def note(size: int) -> str:
    """A checkpoint, with a cosignature beside the log's signature."""
    signed = sign_note(Note(checkpoint_text(ORIGIN, tree().head(size))), ORIGIN, LOG)
    return cosign(signed, "hospitals.llmasos/north", NORTH, seconds=1_795_324_800).encode().decode()


def entry(
    index: int,
    size: int,
    proof: list[bytes] | None = None,
    *,
    body: bytes | None = None,
    root: bytes | None = None,
    checkpoint: str | None = None,
) -> TransparencyLogEntry:
    """An entry as sigstore's client has it from Rekor, in protobuf's JSON types, with our proof and checkpoint inside."""
    encoded = base64.b64encode
    hashes = tree().inclusion_proof(index, size) if proof is None else proof
    inner = rekor_v1.TransparencyLogEntry(
        log_index=str(index),
        log_id=common_v1.LogId(key_id=encoded(log_id())),
        kind_version=rekor_v1.KindVersion(kind="dsse", version="0.0.1"),
        inclusion_proof=rekor_v1.InclusionProof(
            log_index=str(index),
            root_hash=encoded(tree().head(size).root if root is None else root),
            tree_size=str(size),
            hashes=[encoded(each) for each in hashes],
            checkpoint=rekor_v1.Checkpoint(envelope=note(size) if checkpoint is None else checkpoint),
        ),
        canonicalized_body=encoded(ENTRIES[index] if body is None else body),
    )
    return TransparencyLogEntry(inner)


def log_id() -> bytes:
    """C2SP's hash of name, type and key, whose first four bytes are the key ID in a note."""
    return hashlib.sha256(ORIGIN.encode() + b"\n\x01" + bytes.fromhex(LOG.public.public)).digest()


def keyring(key: SigningKey) -> RekorKeyring:
    der = key.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = common_v1.PublicKey(
        raw_bytes=base64.b64encode(der), key_details=common_v1.PublicKeyDetails.PKIX_ED25519, valid_for=None
    )
    return RekorKeyring(Keyring([public]))


def test_every_proof_of_every_tree_up_to_100_is_accepted() -> None:
    for size in range(1, MOST + 1):
        for index in range(size):
            verify_merkle_inclusion(entry(index, size))


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (4, 5), (5, 21), (63, 64), (64, 65), (99, 100)])
def test_spoiled_proofs_are_refused(index: int, size: int) -> None:
    proof = tree().inclusion_proof(index, size)
    for at, node in enumerate(proof):
        for changed in (bytes([node[0] ^ 1]) + node[1:], node[::-1]):
            with pytest.raises(VerificationError, match="contains invalid root hash"):
                verify_merkle_inclusion(entry(index, size, [*proof[:at], changed, *proof[at + 1 :]]))
    for wrong in ([*proof, bytes(32)], [bytes(32), *proof], *([proof[:-1]] if proof else [])):
        with pytest.raises(VerificationError, match="inclusion proof has wrong size"):
            verify_merkle_inclusion(entry(index, size, wrong))
    for spoiled in (entry(index, size, body=b"another"), entry(index, size, root=bytes(32))):
        with pytest.raises(VerificationError, match="contains invalid root hash"):
            verify_merkle_inclusion(spoiled)


def test_a_checkpoint_of_ours_reads_as_one_of_rekor() -> None:
    signed = SignedCheckpoint.from_text(note(21))
    head = tree().head(21)
    assert signed.checkpoint == LogCheckpoint(origin=ORIGIN, log_size=21, log_hash=head.root.hex(), other_content=[])
    assert [each.name for each in signed.signed_note.signatures] == [ORIGIN, "hospitals.llmasos/north"]
    assert signed.signed_note.signatures[0].sig_hash == log_id()[:4]


def test_a_checkpoint_of_ours_verifies_under_the_logs_key_and_no_other() -> None:
    verify_checkpoint(keyring(LOG), entry(5, 21))
    with pytest.raises(VerificationError, match="invalid signature"):
        verify_checkpoint(keyring(NORTH), entry(5, 21))
    with pytest.raises(VerificationError, match="invalid signature"):
        verify_checkpoint(keyring(LOG), entry(5, 21, checkpoint=note(21).replace("\n21\n", "\n22\n")))
    with pytest.raises(VerificationError, match="invalid root hash signature"):
        verify_checkpoint(keyring(LOG), entry(5, 21, checkpoint=note(20)))


def statements() -> list[Statement]:
    federation = a_federation()
    return [
        federation.genesis,
        federation.roster,
        federation.plan,
        federation.answer("north"),
        federation.contribution("north"),
        federation.closed(),
    ]


@pytest.mark.parametrize("statement", statements(), ids=lambda statement: str(statement.kind))
def test_an_envelope_of_ours_is_a_dsse_envelope_around_an_in_toto_statement(statement: Statement) -> None:
    envelope = Envelope._from_json(statement.envelope)
    assert json.loads(envelope.to_json()) == json.loads(statement.envelope)
    read = SigstoreStatement(statement.payload)
    assert read._inner.subjects[0].digest.root == {"sha256": statement.parent.digest}


def test_a_signature_of_ours_is_over_the_bytes_that_sigstore_would_sign() -> None:
    for statement in statements():
        envelope = Envelope._from_json(statement.envelope)
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement.signer_key.public))
        key.verify(envelope.signature, envelope.pae())
        with pytest.raises(InvalidSignature):
            key.verify(envelope.signature, envelope.pae()[:-1])
