"""What is refused always: each test spoils one thing of a good delta."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from common import tensors
from common.blobs.reader import ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.errors import CorruptChunk, DeltaTooLong, NonFiniteDelta, WrongTensors
from common.reduce import DeltaFacts, inspect_delta
from common.reduce.scalar import tree_sum
from common.reduce.selftest import MemoryBlob
from tests.support.blobs import delta_bytes, put_blob, random_arrays, tensor_manifest

MANIFEST = tensor_manifest(trainable={"wte.weight": (40, 50), "bias": (7,)}, frozen={"frozen": (3,)})
HEADER = tensors.trainable_header(MANIFEST)
ARRAYS = random_arrays(MANIFEST, seed=5)


def inspect(delta: bytes | ChunkSource, *, header: bytes = HEADER, max_l2: float = 1000.0) -> DeltaFacts:
    return inspect_delta(MemoryBlob(delta) if isinstance(delta, bytes) else delta, header, max_l2=max_l2)


def test_a_good_delta_gives_its_norm_by_the_documented_sum() -> None:
    values = np.concatenate([ARRAYS["wte.weight"].ravel(), ARRAYS["bias"]]).astype(np.float64)
    facts = inspect(delta_bytes(MANIFEST, ARRAYS))
    assert facts.elements == 2007
    assert facts.l2.hex() == math.sqrt(tree_sum(values * values)).hex()


def test_a_norm_does_not_depend_on_where_chunks_end() -> None:
    manifest = tensor_manifest(trainable={"a": (1_200, 1_000), "b": (3,)})
    arrays = random_arrays(manifest, seed=6)
    values = np.concatenate([arrays["a"].ravel(), arrays["b"]]).astype(np.float64)
    facts = inspect(delta_bytes(manifest, arrays), header=tensors.trainable_header(manifest), max_l2=math.inf)
    assert facts == DeltaFacts(1_200_003, math.sqrt(tree_sum(values * values)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "index"), [("wte.weight", 0), ("wte.weight", 1999), ("bias", 6)])
def test_a_number_that_is_none_is_refused_by_its_place(value: float, name: str, index: int) -> None:
    arrays = {key: array.copy() for key, array in ARRAYS.items()}
    arrays[name].reshape(-1)[index] = value
    with pytest.raises(NonFiniteDelta, match=rf"The delta holds {value} in tensor '{name}' at {index:,}\."):
        inspect(delta_bytes(MANIFEST, arrays))


def test_a_signalling_nan_is_refused_too() -> None:
    delta = bytearray(delta_bytes(MANIFEST, ARRAYS))
    delta[len(HEADER) : len(HEADER) + 4] = bytes.fromhex("0100807f")
    with pytest.raises(NonFiniteDelta, match=r"holds nan in tensor 'wte\.weight' at 0"):
        inspect(bytes(delta))


def test_a_nan_in_a_later_chunk_is_found() -> None:
    manifest = tensor_manifest(trainable={"a": (1_200, 1_000), "b": (3,)})
    arrays = {"a": np.zeros((1_200, 1_000), np.float32), "b": np.array([0, np.nan, 0], np.float32)}
    with pytest.raises(NonFiniteDelta, match="in tensor 'b' at 1"):
        inspect(delta_bytes(manifest, arrays), header=tensors.trainable_header(manifest))


def test_huge_numbers_are_too_long_but_not_infinite() -> None:
    arrays = {name: np.full_like(array, np.finfo(np.float32).max) for name, array in ARRAYS.items()}
    with pytest.raises(DeltaTooLong, match=r"L2 norm is 1\.52445e\+40, the plan's max_delta_l2 is 1000"):
        inspect(delta_bytes(MANIFEST, arrays))
    assert math.isfinite(inspect(delta_bytes(MANIFEST, arrays), max_l2=math.inf).l2)


def test_the_bound_itself_is_allowed() -> None:
    delta = delta_bytes(MANIFEST, ARRAYS)
    l2 = inspect(delta).l2
    assert inspect(delta, max_l2=l2).l2 == l2
    with pytest.raises(DeltaTooLong, match="L2 norm is"):
        inspect(delta, max_l2=math.nextafter(l2, 0))


def test_other_tensors_are_refused_by_name_whatever_the_size() -> None:
    for trainable in ({"wte.weight": (50, 40), "bias": (7,)}, {"wte.weight": (40, 50)}):
        other = tensor_manifest(trainable=trainable)
        with pytest.raises(WrongTensors, match=r"Tensor 'wte.weight' has shape|Tensor 'bias' is missing"):
            inspect(delta_bytes(other, random_arrays(other, seed=1)))


def test_a_delta_with_a_byte_too_many_or_few_is_refused() -> None:
    delta = delta_bytes(MANIFEST, ARRAYS)
    for wrong in (delta + b"\0", delta[:-1]):
        with pytest.raises(WrongTensors, match=f"has {len(wrong):,} bytes, expected {len(delta):,} for its tensors"):
            inspect(wrong)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(WrongTensors, match="ends after 0 bytes"):
        inspect(b"")


def test_a_header_that_declares_too_much_is_not_read() -> None:
    with pytest.raises(WrongTensors, match="declares a header of"):
        inspect(b"\xff" * len(delta_bytes(MANIFEST, ARRAYS)))


def test_a_header_longer_than_a_chunk_is_checked_whole() -> None:
    manifest = tensor_manifest(trainable={f"{'layer' * 55}.{index}": (1,) for index in range(13_000)})
    delta = delta_bytes(manifest, random_arrays(manifest, seed=2))
    header = tensors.trainable_header(manifest)
    assert len(header) > CHUNK_BYTES
    assert inspect(delta, header=header).elements == 13_000
    spoiled = bytearray(delta)
    at = delta.index(b"layer.12900")
    spoiled[at] = ord("L")
    with pytest.raises(WrongTensors, match=r"Layer\.12900' is not one that the manifest lists"):
        inspect(bytes(spoiled), header=header)


def test_bytes_changed_after_arrival_are_found(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    ref = put_blob(store, delta_bytes(MANIFEST, ARRAYS))
    with store.path(ref).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with store.open(ref) as reader, pytest.raises(CorruptChunk, match="was changed on disk"):
        inspect(reader)
