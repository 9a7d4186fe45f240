"""The exact reducer against the documented formula, computed independently: equal in every bit."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.errors import CorruptChunk, ImplausibleWeight, ModelOverflow, SlotTaken, WrongTensors
from common.plan.local import MAX_NUM_TOKENS
from common.plan.model import Plan
from common.plan.server_optimizers import ServerSGD
from common.reduce import ReduceJob, WeightedDelta, reduce_round
from common.reduce.selftest import MemoryBlob
from common.statements.kinds import Tensor
from tests.support.blobs import (
    Arrays,
    MadeDelta,
    delta_bytes,
    model_bytes,
    put_blob,
    random_arrays,
    recompute_model,
    tensor_manifest,
)

SMALL = tensor_manifest(trainable={"w": (4, 3), "b": (5,)}, frozen={"f": (6,)}, personal={"p": (2,)})


def plan(learning_rate: str = "1") -> Plan:
    return Plan(apiVersion="llmasos/v1", name="test", server_optimizer=ServerSGD(learning_rate=Decimal(learning_rate)))


def reduced(manifest: Sequence[Tensor], base: Arrays, deltas: Sequence[MadeDelta], learning_rate: str = "1") -> bytes:
    weighted = [
        WeightedDelta(delta.institution, delta.num_tokens, MemoryBlob(delta_bytes(manifest, delta.arrays)))
        for delta in deltas
    ]
    out = bytearray()
    reduce_round(
        ReduceJob(plan(learning_rate), manifest, MemoryBlob(model_bytes(manifest, base)), weighted), out.extend
    )
    return bytes(out)


def expected(manifest: Sequence[Tensor], base: Arrays, deltas: Sequence[MadeDelta], learning_rate: str = "1") -> bytes:
    return model_bytes(manifest, recompute_model(manifest, base, deltas, learning_rate))


def made(manifest: Sequence[Tensor], institution: str, num_tokens: int, seed: int, scale: float = 1.0) -> MadeDelta:
    return MadeDelta(institution, num_tokens, random_arrays(manifest, seed=seed, scale=scale))


finite = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_new_model_is_the_formulas_bit_for_bit(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4))
    manifest = tensor_manifest(
        trainable={f"t{index}": tuple(shape) for index, shape in enumerate(shapes)},
        frozen={"frozen": (3,)} if data.draw(st.booleans()) else None,
    )

    def arrays() -> dict[str, np.ndarray]:
        return {
            tensor.name: np.array(
                data.draw(st.lists(finite, min_size=tensor.elements, max_size=tensor.elements)), dtype=np.float32
            ).reshape(tensor.shape)
            for tensor in manifest
        }

    names = data.draw(
        st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,3}[a-z0-9]", fullmatch=True), min_size=1, max_size=5, unique=True)
    )
    deltas = [MadeDelta(name, data.draw(st.integers(1, MAX_NUM_TOKENS)), arrays()) for name in names]
    learning_rate = data.draw(st.sampled_from(["1", "0.7", "0.1", "1.5"]))
    base = arrays()
    assert reduced(manifest, base, deltas, learning_rate) == expected(manifest, base, deltas, learning_rate)


def test_several_chunks_out_of_a_store_are_the_formulas_bit_for_bit(tmp_path: Path) -> None:
    manifest = tensor_manifest(
        trainable={"wte.weight": (1_301, 1_009), "h.0.attn.weight": (1_000, 999), "scale": ()},
        frozen={"positions." + "x" * 250: (333, 777), "more": (1_000_003,)},
    )
    base = random_arrays(manifest, seed=1)
    deltas = [made(manifest, name, n, n, 1e-3) for name, n in (("south", 77), ("east", 1), ("north-1", MAX_NUM_TOKENS))]
    assert len(tensors.model_header(manifest)) != len(tensors.trainable_header(manifest))
    assert tensors.delta_size(manifest) > 2 * CHUNK_BYTES
    store = FolderBlobStore(tmp_path)
    with ExitStack() as stack:
        weighted = [
            WeightedDelta(
                delta.institution,
                delta.num_tokens,
                stack.enter_context(store.open(put_blob(store, delta_bytes(manifest, delta.arrays)))),
            )
            for delta in deltas
        ]
        base_reader = stack.enter_context(store.open(put_blob(store, model_bytes(manifest, base))))
        writer = stack.enter_context(store.writer("blake3"))
        reduce_round(ReduceJob(plan("0.7"), manifest, base_reader, weighted), writer.write)
        ref = writer.commit()
    assert store.path(ref).read_bytes() == expected(manifest, base, deltas, "0.7")


def test_the_order_of_deltas_changes_nothing_though_addition_would() -> None:
    base = random_arrays(SMALL, seed=1)
    deltas = [
        made(SMALL, name, n, n, scale)
        for name, n, scale in (("b", 3, 1e8), ("a-b", 5, 1.0), ("a", 7, 1e-8), ("ab", 9, 1e4))
    ]
    results = {reduced(SMALL, base, order) for order in itertools.permutations(deltas)}
    assert results == {expected(SMALL, base, deltas)}


def test_names_are_ordered_as_bytes() -> None:
    """`-` sorts before digits and letters, and a name before those that it begins."""
    big, small = np.float32(2.0**60), np.float32(1.0)
    manifest = tensor_manifest(trainable={"w": (1,)})
    base = {"w": np.zeros(1, np.float32)}
    # In the order a, a-, a0, aa: (2^60 - 2^60) + 1 + 1; any other loses a one.
    deltas = [
        MadeDelta(name, 1, {"w": np.array([value], np.float32)})
        for name, value in (("aa", small), ("a-z", -big), ("a", big), ("a0", small))
    ]
    out = reduced(manifest, base, deltas)
    assert np.frombuffer(out[-4:], "<f4")[0] == 0.5


def test_one_participant_at_learning_rate_one_gives_base_plus_its_delta() -> None:
    generator = np.random.default_rng(3)
    before, after = random_arrays(SMALL, seed=1), random_arrays(SMALL, seed=2)
    delta = {name: after[name] - before[name] for name in before}
    for num_tokens in (1, 3, MAX_NUM_TOKENS, int(generator.integers(1, MAX_NUM_TOKENS))):
        out = reduced(SMALL, before, [MadeDelta("north", num_tokens, delta)])
        new = {name: before[name] + delta[name] if name in ("w", "b") else before[name] for name in before}
        assert out == model_bytes(SMALL, new)


def test_frozen_tensors_are_copied_and_personal_ones_are_not_there() -> None:
    base = random_arrays(SMALL, seed=1)
    base["f"][:] = [np.nan, np.inf, -0.0, 1e-45, 3.0, -np.inf]
    out = reduced(SMALL, base, [made(SMALL, "north", 5, 9)])
    assert out[-24:] == base["f"].tobytes()
    assert b'"p"' not in out


def test_denormals_survive() -> None:
    manifest = tensor_manifest(trainable={"w": (3,)})
    tiny = np.float32(2.0**-149)
    base = {"w": np.array([0.0, tiny, -tiny], np.float32)}
    deltas = [MadeDelta(name, 1, {"w": np.array([tiny, tiny, tiny], np.float32)}) for name in ("a", "b", "c")]
    out = reduced(manifest, base, deltas)
    np.testing.assert_array_equal(np.frombuffer(out[-12:], "<f4"), np.array([tiny, 2 * tiny, 0.0], np.float32))


def test_the_sum_starts_at_plus_zero() -> None:
    """So that −0.0 deltas leave +0.0 weights as they are, and −0.0 weights become +0.0, as IEEE 754 adds."""
    manifest = tensor_manifest(trainable={"w": (2,)})
    base = {"w": np.array([-0.0, 0.0], np.float32)}
    out = reduced(manifest, base, [MadeDelta("a", 5, {"w": np.array([-0.0, -0.0], np.float32)})])
    assert out[-8:] == np.array([0.0, 0.0], np.float32).tobytes()


def test_a_learning_rate_is_rounded_once_to_float32() -> None:
    manifest = tensor_manifest(trainable={"w": (1,)})
    deltas = [MadeDelta("a", 1, {"w": np.ones(1, np.float32)})]
    out = reduced(manifest, {"w": np.zeros(1, np.float32)}, deltas, "0.1")
    assert np.frombuffer(out[-4:], "<f4")[0] == np.float32(0.1)


def test_a_header_longer_than_a_chunk_reduces_too() -> None:
    manifest = tensor_manifest(
        trainable={f"{'layer' * 55}.{index}": (1,) for index in range(13_000)}, frozen={"f": (100,)}
    )
    base, delta = random_arrays(manifest, seed=1), made(manifest, "north", 4, 2)
    assert len(tensors.trainable_header(manifest)) > CHUNK_BYTES
    assert reduced(manifest, base, [delta]) == expected(manifest, base, [delta])


def test_memory_does_not_grow_with_the_model_or_the_cohort(tmp_path: Path) -> None:
    def peak(elements: int, institutions: int) -> int:
        manifest = tensor_manifest(trainable={"w": (elements,)})
        store = FolderBlobStore(tmp_path / f"{elements}-{institutions}")
        base = put_blob(store, model_bytes(manifest, {"w": np.zeros(elements, np.float32)}))
        delta = put_blob(store, delta_bytes(manifest, {"w": np.ones(elements, np.float32)}))
        with ExitStack() as stack:
            readers = [stack.enter_context(store.open(delta)) for _ in range(institutions)]
            weighted = [WeightedDelta(f"i{index}", 1, reader) for index, reader in enumerate(readers)]
            writer = stack.enter_context(store.writer("blake3"))
            job = ReduceJob(plan(), manifest, stack.enter_context(store.open(base)), weighted)
            tracemalloc.start()
            reduce_round(job, writer.write)
            top = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return top

    few = peak(CHUNK_BYTES // 4, 1)
    assert few < 48 * 2**20
    assert peak(3 * CHUNK_BYTES // 4, 8) < few + 2**20


# --- refused --------------------------------------------------------------------------------------------------------------


def test_one_institution_twice_is_refused() -> None:
    base = random_arrays(SMALL, seed=1)
    with pytest.raises(SlotTaken, match="north stands twice among the deltas of one round"):
        reduced(SMALL, base, [made(SMALL, "north", 5, 1), made(SMALL, "east", 5, 1), made(SMALL, "north", 5, 2)])


@pytest.mark.parametrize("num_tokens", [0, -1, MAX_NUM_TOKENS + 1])
def test_a_weight_out_of_range_is_refused(num_tokens: int) -> None:
    base = random_arrays(SMALL, seed=1)
    with pytest.raises(ImplausibleWeight, match=f"num_tokens of north is {num_tokens:,}, expected 1 to 536,870,911"):
        reduced(SMALL, base, [made(SMALL, "north", num_tokens, 1)])


def test_no_delta_at_all_has_no_mean() -> None:
    with pytest.raises(ImplausibleWeight, match="A round without deltas has no mean"):
        reduced(SMALL, random_arrays(SMALL, seed=1), [])


def test_a_delta_of_other_tensors_is_refused() -> None:
    other = tensor_manifest(trainable={"w": (4, 3), "b": (6,)})
    delta = WeightedDelta("north", 1, MemoryBlob(delta_bytes(other, random_arrays(other, seed=1))))
    base = MemoryBlob(model_bytes(SMALL, random_arrays(SMALL, seed=1)))
    with pytest.raises(WrongTensors, match=r"Tensor 'b' has shape \[6\], expected \[5\]"):
        reduce_round(ReduceJob(plan(), SMALL, base, [delta]), bytearray().extend)


@pytest.mark.parametrize("wrong", ["header", "longer", "empty"])
def test_a_base_that_is_not_the_manifests_is_refused(wrong: str) -> None:
    delta = WeightedDelta("north", 1, MemoryBlob(delta_bytes(SMALL, random_arrays(SMALL, seed=1))))
    right = model_bytes(SMALL, random_arrays(SMALL, seed=1))
    base = {"header": right.replace(b'"w"', b'"v"'), "longer": right + b"\0\0\0\0", "empty": b""}[wrong]
    with pytest.raises(WrongTensors, match=r"Tensor 'v' is not one|Base model .* bytes, expected|ends after 0 bytes"):
        reduce_round(ReduceJob(plan(), SMALL, MemoryBlob(base), [delta]), bytearray().extend)


@pytest.mark.parametrize("learning_rate", ["1", "100"])
def test_a_model_that_would_overflow_is_refused_by_its_place(learning_rate: str) -> None:
    top = np.finfo(np.float32).max
    base = random_arrays(SMALL, seed=1)
    arrays = {name: np.zeros_like(array) for name, array in base.items()}
    base["b"][3] = top
    arrays["b"][3] = top
    with pytest.raises(ModelOverflow, match="The new model would hold inf in tensor 'b' at 3"):
        reduced(SMALL, base, [MadeDelta("north", 1, arrays)], learning_rate)


def test_a_nan_that_was_never_inspected_makes_no_model() -> None:
    arrays = random_arrays(SMALL, seed=1)
    arrays["w"][2, 1] = math.nan
    with pytest.raises(ModelOverflow, match="would hold nan in tensor 'w' at 7"):
        reduced(SMALL, random_arrays(SMALL, seed=2), [MadeDelta("north", 1, arrays)])


def test_a_delta_changed_on_disk_makes_no_model(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    ref = put_blob(store, delta_bytes(SMALL, random_arrays(SMALL, seed=1)))
    base = MemoryBlob(model_bytes(SMALL, random_arrays(SMALL, seed=2)))
    with store.path(ref).open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x01")
    with store.open(ref) as reader, pytest.raises(CorruptChunk, match="was changed on disk"):
        reduce_round(ReduceJob(plan(), SMALL, base, [WeightedDelta("north", 1, reader)]), bytearray().extend)
