"""Norm and cosine of each delta against plain numpy, and what is refused."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.errors import CorruptChunk, TruncatedChunk, WrongTensors
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.moved import Models, Moved, compare
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor
from tests.support.blobs import delta_bytes, model_bytes, random_arrays, tensor_manifest
from tests.support.encoded import encoded_blob

Values = NDArray[np.float32]
SMALL = tensor_manifest(trainable={"w": (4, 3), "b": (5,)}, frozen={"f": (6,)}, personal={"p": (2,)})
LARGE = tensor_manifest(trainable={"w": (3, LEAF_ELEMENTS), "b": (77,)}, frozen={"f": (6,)})


def arrays(manifest: tuple[Tensor, ...], seed: int, scale: float = 1.0) -> dict[str, Values]:
    return random_arrays(manifest, seed=seed, scale=scale)


def flat(manifest: tuple[Tensor, ...], numbers: dict[str, Values]) -> Values:
    return np.concatenate([numbers[t.name].reshape(-1) for t in manifest if t.group == "trainable"])


def compared(manifest: tuple[Tensor, ...], seeds: tuple[int, ...], codec: str = "float32") -> tuple[Moved, Moved]:
    """What the module says of deltas of these seeds, and what numpy says."""
    base, model = arrays(manifest, 1), arrays(manifest, 2)
    deltas = [arrays(manifest, seed, 0.01) for seed in seeds]
    blobs = [MemoryBlob(encoded_blob(codec, manifest, flat(manifest, delta))) for delta in deltas]
    models = Models(manifest, MemoryBlob(model_bytes(manifest, base)), MemoryBlob(model_bytes(manifest, model)))
    step = flat(manifest, model).astype(np.float64) - flat(manifest, base)
    expected = []
    for delta in deltas:
        numbers = np.empty(codec_elements(codec, manifest), dtype=np.float32)
        encoded = CODECS[codec].encode(flat(manifest, delta))
        decoded = CODECS[codec].decode(memoryview(bytes(encoded)), numbers)[: len(step)].astype(np.float64)
        l2 = float(np.linalg.norm(decoded))
        expected.append((l2, float(decoded @ step) / l2 / float(np.linalg.norm(step))))
    found = compare(models, CODECS[codec], blobs)
    assert found.step_l2 == pytest.approx(float(np.linalg.norm(step)), rel=1e-12)
    for movement, (l2, cosine) in zip(found.deltas, expected, strict=True):
        assert movement.l2 == pytest.approx(l2, rel=1e-12)
        assert movement.cosine == pytest.approx(cosine, abs=1e-12)
    return found, compare(models, CODECS[codec], blobs[::-1])


def codec_elements(codec: str, manifest: tuple[Tensor, ...]) -> int:
    count = sum(tensor.elements for tensor in manifest if tensor.group == "trainable")
    block = CODECS[codec].block_elements
    return -(-count // block) * block


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8", "int4", "topk"])
@pytest.mark.parametrize("manifest", [SMALL, LARGE], ids=["small", "several leaves"])
def test_numbers_are_numpys_and_do_not_depend_on_the_order(codec: str, manifest: tuple[Tensor, ...]) -> None:
    found, turned = compared(manifest, (3, 4, 5), codec)
    assert turned.deltas == found.deltas[::-1]
    assert turned.step_l2 == found.step_l2


def two_models(base: dict[str, Values], model: dict[str, Values]) -> Models:
    return Models(SMALL, MemoryBlob(model_bytes(SMALL, base)), MemoryBlob(model_bytes(SMALL, model)))


def test_a_delta_that_is_the_step_has_cosine_one_and_its_opposite_minus_one() -> None:
    base, step = arrays(SMALL, 1), arrays(SMALL, 2)
    zero = {name: np.zeros_like(value) for name, value in base.items()}
    opposite = {name: -value for name, value in step.items()}
    deltas = [MemoryBlob(delta_bytes(SMALL, each)) for each in (step, opposite)]
    found = compare(two_models(zero, step), CODECS["float32"], deltas)
    assert [each.cosine for each in found.deltas] == [pytest.approx(1.0), pytest.approx(-1.0)]
    assert all(abs(each.cosine or 2.0) <= 1.0 for each in found.deltas)


def test_what_has_no_length_has_no_direction() -> None:
    base, other = arrays(SMALL, 1), arrays(SMALL, 2)
    zero = MemoryBlob(delta_bytes(SMALL, {name: np.zeros_like(value) for name, value in base.items()}))
    (found,) = compare(two_models(base, other), CODECS["float32"], [zero]).deltas
    assert (found.l2, found.cosine) == (0.0, None)
    still = compare(two_models(base, base), CODECS["float32"], [MemoryBlob(delta_bytes(SMALL, other))])
    assert (still.step_l2, still.deltas[0].cosine) == (0.0, None)
    assert math.isfinite(still.deltas[0].l2)


def test_frozen_tensors_do_not_count() -> None:
    base, model = arrays(SMALL, 1), arrays(SMALL, 2)
    delta = [MemoryBlob(delta_bytes(SMALL, arrays(SMALL, 3)))]
    other = model | {"f": arrays(SMALL, 9)["f"]}
    assert compare(two_models(base, model), CODECS["float32"], delta) == compare(
        two_models(base, other), CODECS["float32"], delta
    )


def test_what_is_not_the_manifests_is_refused() -> None:
    other = tensor_manifest(trainable={"w": (4, 3), "c": (5,)}, frozen={"f": (6,)})
    base = MemoryBlob(model_bytes(SMALL, arrays(SMALL, 1)))
    strange = MemoryBlob(model_bytes(other, arrays(other, 1)))
    with pytest.raises(WrongTensors, match="c"):
        compare(Models(SMALL, base, strange), CODECS["float32"], [])
    with pytest.raises(WrongTensors):
        compare(Models(SMALL, base, base), CODECS["float32"], [MemoryBlob(b"x" * 100)])
    with pytest.raises(TruncatedChunk):
        compare(Models(SMALL, base, MemoryBlob(model_bytes(SMALL, arrays(SMALL, 1))[:200])), CODECS["float32"], [])


class Spoilt(MemoryBlob):
    """Its bytes are not those of its leaves."""

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        raise CorruptChunk("spoilt")


def test_a_changed_delta_is_no_figure() -> None:
    base = MemoryBlob(model_bytes(SMALL, arrays(SMALL, 1)))
    with pytest.raises(CorruptChunk):
        compare(Models(SMALL, base, base), CODECS["float32"], [Spoilt(delta_bytes(SMALL, arrays(SMALL, 3)))])


def test_memory_is_bounded_whatever_the_size() -> None:
    manifest = tensor_manifest(trainable={"w": (8 * 2**20,)})
    base, model = (MemoryBlob(model_bytes(manifest, arrays(manifest, seed))) for seed in (1, 2))
    deltas = [MemoryBlob(delta_bytes(manifest, arrays(manifest, seed))) for seed in (3, 4)]
    tracemalloc.start()
    compare(Models(manifest, base, model), CODECS["float32"], deltas)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * CHUNK_BYTES, f"{peak:,} bytes for 4 × {base.ref.size:,}"
