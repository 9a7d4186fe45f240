"""Small models and deltas as blobs, and the documented arithmetic once more, slowly and with nothing of `common.reduce`.

>>> manifest = tensor_manifest(trainable={"w": (3, 4)}, frozen={"p": (2,)})
>>> base = model_bytes(manifest, random_arrays(manifest, seed=1))
>>> ref = put_blob(store, base)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.blobs import digest
from common.blobs.reference import CHUNK_BYTES, BlobRef, DigestName
from common.blobs.store import FolderBlobStore
from common.codecs import codec as codec_of
from common.plan.codecs import Codec
from common.statements.kinds import Tensor
from common.tensors import trainable_header

Shapes = Mapping[str, tuple[int, ...]]
Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class MadeDelta:
    """One institution's delta, as numbers."""

    institution: str
    num_tokens: int
    arrays: Arrays


def tensor_manifest(
    *, trainable: Shapes, frozen: Shapes | None = None, personal: Shapes | None = None
) -> tuple[Tensor, ...]:
    """A manifest from names and shapes, in the order given."""
    return (
        *(Tensor(name=name, shape=shape) for name, shape in trainable.items()),
        *(Tensor(name=name, shape=shape, group="frozen") for name, shape in (frozen or {}).items()),
        *(Tensor(name=name, shape=shape, group="personal") for name, shape in (personal or {}).items()),
    )


def random_arrays(manifest: Sequence[Tensor], *, seed: int, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Numbers for every tensor of the manifest."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: (generator.standard_normal(tensor.shape) * scale).astype(np.float32).reshape(tensor.shape)
        for tensor in manifest
    }


def model_bytes(manifest: Sequence[Tensor], arrays: Arrays) -> bytes:
    """A model blob: trainable and frozen tensors."""
    return _file_bytes([tensor for tensor in manifest if tensor.group != "personal"], arrays)


def delta_bytes(manifest: Sequence[Tensor], arrays: Arrays) -> bytes:
    """A delta blob: trainable tensors."""
    return _file_bytes([tensor for tensor in manifest if tensor.group == "trainable"], arrays)


def encoded_delta(manifest: Sequence[Tensor], delta: bytes, codec: Codec) -> bytes:
    """A delta blob by a plan's codec, of a delta whose institution keeps no residual."""
    values_N = np.frombuffer(delta, "<f4", offset=len(trainable_header(manifest)))
    return codec_of(codec).header(manifest) + bytes(codec_of(codec).encode(values_N))


def _file_bytes(tensors: Sequence[Tensor], arrays: Arrays) -> bytes:
    members, data = [], b""
    parts = []
    at = 0
    for tensor in tensors:
        content = np.asarray(arrays[tensor.name], dtype="<f4").tobytes()
        shape = ",".join(str(extent) for extent in tensor.shape)
        members.append(
            f'{json.dumps(tensor.name)}:{{"dtype":"F32","shape":[{shape}],"data_offsets":[{at},{at + len(content)}]}}'
        )
        parts.append(content)
        at += len(content)
    text = ("{" + ",".join(members) + "}").encode()
    while (8 + len(text)) % 64:
        text += b" "
    data = b"".join(parts)
    return len(text).to_bytes(8, "little") + text + data


def leaves_and_ref(content: bytes, algorithm: DigestName = "blake3") -> tuple[bytes, BlobRef]:
    """Leaf list and reference of a content."""
    leaves = [digest.leaf(algorithm, content[at : at + CHUNK_BYTES]) for at in range(0, len(content), CHUNK_BYTES)]
    root = digest.root_of(algorithm, leaves).hex()
    return b"".join(leaves), BlobRef(algorithm=algorithm, size=len(content), root=root)


def put_blob(store: FolderBlobStore, content: bytes, algorithm: DigestName = "blake3") -> BlobRef:
    """Write a content into a store."""
    with store.writer(algorithm) as writer:
        writer.write(content)
        return writer.commit()


def read_blob(store: FolderBlobStore, ref: BlobRef) -> bytes:
    """The whole content, verified."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with store.open(ref) as reader:
        return b"".join(bytes(reader.read_chunk(index, buffer)) for index in range(ref.chunks))


def recompute_model(
    manifest: Sequence[Tensor], base: Arrays, deltas: Sequence[MadeDelta], learning_rate: str
) -> dict[str, NDArray[np.float32]]:
    """New model by docs/protocol.md#arithmetic: `weighted-mean` and `sgd`, tensor by tensor, one operation a line."""
    ordered = sorted(deltas, key=lambda delta: delta.institution.encode())
    total = np.float64(sum(delta.num_tokens for delta in ordered))
    lr = np.float32(float(learning_rate))
    new = {}
    for tensor in manifest:
        if tensor.group == "frozen":
            new[tensor.name] = base[tensor.name]
        if tensor.group != "trainable":
            continue
        acc = np.zeros(tensor.shape, dtype=np.float64)
        for delta in ordered:
            product = np.float64(delta.num_tokens) * delta.arrays[tensor.name].astype(np.float64)
            acc = acc + product
        g = (acc / total).astype(np.float32)
        step = (lr * g).astype(np.float32)
        new[tensor.name] = (base[tensor.name] + step).astype(np.float32)
    return new
