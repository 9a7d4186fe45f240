"""Digests of blobs: a leaf for each chunk, the root over the leaves (docs/protocol.md#blobs).

>>> leaves = [leaf("blake3", chunk) for chunk in chunks]
>>> ref = BlobRef(algorithm="blake3", size=size, root=root_of("blake3", leaves).hex())
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from blake3 import blake3

from common.blobs.reference import BlobRef, DigestName
from common.errors import BadBlobReference
from common.ledger import merkle

HASH_FUNCTIONS: dict[DigestName, merkle.HashFunction] = {"blake3": blake3, "sha256": hashlib.sha256}


def hasher(algorithm: DigestName) -> merkle.Hasher:
    """An empty hasher of that algorithm."""
    return HASH_FUNCTIONS[algorithm]()


def leaf(algorithm: DigestName, chunk: merkle.Bytes) -> bytes:
    """The leaf hash of one chunk, 32 bytes; the chunk is not copied."""
    return merkle.leaf_hash(HASH_FUNCTIONS[algorithm], chunk)


def root_of(algorithm: DigestName, leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, 32 bytes; a blob without chunks has the digest of nothing."""
    return merkle.root(HASH_FUNCTIONS[algorithm], leaves)


def split_leaves(leaves: bytes) -> Iterator[bytes]:
    """The leaf hashes of a leaf list, which is nothing but their concatenation."""
    return (leaves[at : at + merkle.HASH_BYTES] for at in range(0, len(leaves), merkle.HASH_BYTES))


def leaf_at(leaves: bytes, index: int) -> bytes:
    """Leaf hash `index` of a leaf list."""
    return leaves[index * merkle.HASH_BYTES : (index + 1) * merkle.HASH_BYTES]


def check_leaves(ref: BlobRef, leaves: bytes) -> None:
    """Check that this leaf list is the one that `ref` commits to.

    Raises:
        BadBlobReference: another number of leaves than the size implies, or another root.
    """
    expected_bytes = ref.chunks * merkle.HASH_BYTES
    if len(leaves) != expected_bytes:
        raise BadBlobReference(
            f"The leaf list of blob {ref} has {len(leaves):,} bytes, expected {expected_bytes:,} for {ref.chunks:,} chunks.",
            "Send 32 bytes for each 4 MiB chunk, the last of which may be shorter.",
        )
    computed = merkle.root(HASH_FUNCTIONS[ref.algorithm], split_leaves(leaves)).hex()
    if computed != ref.root:
        raise BadBlobReference(
            f"The leaf list of blob {ref} has root {computed}, expected {ref.root}.",
            "Send the leaf list of this very blob, in the order of its chunks.",
        )
