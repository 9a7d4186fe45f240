"""References and leaf lists: what fits together and what does not."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3

from common.blobs import digest
from common.blobs.reference import CHUNK_BYTES, BlobRef, DigestName
from common.errors import BadBlobReference
from tests.support.blobs import leaves_and_ref

CONTENT = b"\x01\x02\x03" * (CHUNK_BYTES // 3 + 100)


@pytest.mark.parametrize(("algorithm", "h"), [("sha256", hashlib.sha256), ("blake3", blake3)])
def test_a_root_is_the_tree_over_prefixed_chunks(algorithm: DigestName, h: type[blake3]) -> None:
    first = h(b"\x00" + CONTENT[:CHUNK_BYTES]).digest()
    second = h(b"\x00" + CONTENT[CHUNK_BYTES:]).digest()
    leaves, ref = leaves_and_ref(CONTENT, algorithm)
    assert leaves == first + second
    assert ref.root == h(b"\x01" + first + second).hexdigest()
    digest.check_leaves(ref, leaves)


def test_an_empty_blob_has_the_digest_of_nothing() -> None:
    leaves, ref = leaves_and_ref(b"")
    assert (leaves, ref.root, ref.chunks) == (b"", blake3(b"").hexdigest(), 0)
    assert digest.hasher("blake3").digest().hex() == ref.root
    digest.check_leaves(ref, leaves)


def test_a_leaf_is_hashed_from_any_buffer() -> None:
    assert digest.leaf("blake3", memoryview(bytearray(b"abc"))) == digest.leaf("blake3", b"abc")


def test_a_leaf_list_of_another_length_is_refused() -> None:
    leaves, ref = leaves_and_ref(CONTENT)
    with pytest.raises(BadBlobReference, match="has 32 bytes, expected 64 for 2 chunks"):
        digest.check_leaves(ref, leaves[:32])
    with pytest.raises(BadBlobReference, match="has 63 bytes"):
        digest.check_leaves(ref, leaves[:-1])


def test_leaves_in_another_order_are_refused() -> None:
    leaves, ref = leaves_and_ref(CONTENT)
    with pytest.raises(BadBlobReference, match=f"expected {ref.root}"):
        digest.check_leaves(ref, leaves[32:] + leaves[:32])


def test_leaves_of_another_algorithm_are_refused() -> None:
    leaves, ref = leaves_and_ref(CONTENT, "sha256")
    other = BlobRef(algorithm="blake3", size=ref.size, root=ref.root)
    with pytest.raises(BadBlobReference, match="The leaf list of blob blake3:"):
        digest.check_leaves(other, leaves)
