"""The reducer against Python's own floats and against the program that docs/protocol.md prints: equal in every bit."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import tensors
from common.errors import ModelOverflow
from common.plan.local import MAX_NUM_TOKENS
from common.reduce import ReduceJob, WeightedDelta, inspect_delta
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.scalar import LeafOfSquares, TreeSum, tree_sum
from common.reduce.selftest import MemoryBlob
from tests.support import exact
from tests.support.blobs import MadeDelta, delta_bytes, model_bytes, tensor_manifest
from tests.support.wild_rounds import chunk_border_manifest, reduced, wild, wild_job

LEARNING_RATES = ("1", "0.7", "0.1", "1.3", "0.333333333333333333", "99.99", "0.0000001")
LARGEST_FINITE_BITS = 0x7F7FFFFF

bits32 = st.integers(0, LARGEST_FINITE_BITS) | st.sampled_from([0, 1, 0x007FFFFF, 0x00800000, 0x3F800000])
numbers = st.builds(lambda bits, negative: exact.from_bits(bits | negative << 31), bits32, st.booleans())
weights = (
    st.integers(1, MAX_NUM_TOKENS) | st.integers(MAX_NUM_TOKENS - 5, MAX_NUM_TOKENS) | st.sampled_from([1, 3, 2**28])
)


def numbers_of(blob: bytes, header: bytes) -> list[float]:
    """A blob's numbers as Python floats, read without numpy."""
    data = blob[len(header) :]
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def content(source: object) -> bytes:
    assert isinstance(source, MemoryBlob)
    return source.content


def made_by_hand(job: ReduceJob) -> bytes:
    """The new model's bytes, by Python's floats."""
    header, delta_header = tensors.model_header(job.manifest), tensors.trainable_header(job.manifest)
    contributions = {
        delta.institution: (delta.num_tokens, numbers_of(content(delta.reader), delta_header)) for delta in job.deltas
    }
    old = numbers_of(content(job.base), header)
    trainable = tensors.trainable_elements(job.manifest)
    learning_rate = str(job.plan.server_optimizer.learning_rate)
    new = exact.new_values(old[:trainable], contributions, learning_rate) + old[trainable:]
    return header + struct.pack(f"<{len(new)}f", *new)


def with_bytes(job: ReduceJob, base: bytes, deltas: Sequence[MadeDelta]) -> ReduceJob:
    """The job with other bytes."""
    weighted = [
        WeightedDelta(each.institution, each.num_tokens, MemoryBlob(delta_bytes(job.manifest, each.arrays)))
        for each in deltas
    ]
    return ReduceJob(job.plan, job.manifest, MemoryBlob(base), weighted)


def refused(job: ReduceJob) -> bool:
    try:
        reduced(job)
    except ModelOverflow:
        return True
    return False


@settings(max_examples=150)
@given(data=st.data())
def test_any_finite_numbers_give_what_pythons_floats_give(data: st.DataObject) -> None:
    elements, institutions = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    manifest = tensor_manifest(trainable={"w": (elements,)}, frozen={"f": (2,)})
    job = wild_job(manifest, institutions, data.draw(st.sampled_from(LEARNING_RATES)))

    def drawn(count: int) -> np.ndarray:
        return np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)), dtype=np.float32)

    base = model_bytes(manifest, {"w": drawn(elements), "f": drawn(2)})
    deltas = [MadeDelta(delta.institution, data.draw(weights), {"w": drawn(elements)}) for delta in job.deltas]
    job = with_bytes(job, base, deltas)
    try:
        expected = made_by_hand(job)
    except OverflowError:
        assert refused(job)
    else:
        assert reduced(job) == expected


@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
@pytest.mark.parametrize("institutions", [1, 2, 7, 64])
def test_from_one_institution_to_64_every_bit_is_pythons(institutions: int, learning_rate: str) -> None:
    job = wild_job(tensor_manifest(trainable={"w": (199,), "s": ()}, frozen={"f": (3,)}), institutions, learning_rate)
    assert reduced(job) == made_by_hand(job)


@pytest.mark.parametrize("elements", [1, LEAF_ELEMENTS - 1, LEAF_ELEMENTS, LEAF_ELEMENTS + 1, 3 * LEAF_ELEMENTS + 7])
def test_a_norm_around_a_leafs_border_is_pythons(elements: int) -> None:
    manifest = tensor_manifest(trainable={"w": (elements,)})
    for values in (wild(elements, 5), wild(2 * elements, 6)[::2]):
        plain = [float(value) for value in values]
        delta = delta_bytes(manifest, {"w": values})
        facts = inspect_delta(MemoryBlob(delta), tensors.trainable_header(manifest), max_l2=float("inf"))
        assert facts.l2.hex() == exact.l2(plain).hex()
        squares = TreeSum(LeafOfSquares())
        squares.add(values)
        assert squares.total().hex() == exact.tree_sum([value * value for value in plain]).hex()


@pytest.mark.parametrize("elements", [LEAF_ELEMENTS, 3 * LEAF_ELEMENTS + 7, 7 * LEAF_ELEMENTS])
def test_what_is_left_of_opposite_numbers_is_pythons(elements: int) -> None:
    """Their sum is what additions rounded off, so another tree shows in every bit."""
    half = wild(elements // 2, 8).astype(np.float64)
    values = np.concatenate([half, -np.random.default_rng(9).permutation(half), np.zeros(elements % 2)])
    total = tree_sum(values)
    assert total.hex() == exact.tree_sum([float(value) for value in values]).hex()
    assert total != float(np.sum(values))  # so that this could fail


def test_a_tie_goes_to_the_even_neighbour_and_half_a_denormal_to_zero() -> None:
    manifest = tensor_manifest(trainable={"w": (4,)})
    tiny = 2.0**-149
    base = {"w": np.array([1.0, 1.0 + 2.0**-23, 0.0, 0.0], np.float32)}
    delta = {"w": np.array([2.0**-24, 2.0**-24, tiny, 3 * tiny], np.float32)}
    zero = {"w": np.zeros(4, np.float32)}
    job = wild_job(manifest, 1, "1")
    alone = with_bytes(job, model_bytes(manifest, base), [MadeDelta("a", 5, delta)])
    halved = with_bytes(job, model_bytes(manifest, base), [MadeDelta("a", 5, delta), MadeDelta("b", 5, zero)])
    assert numbers_of(reduced(alone), tensors.model_header(manifest)) == [1.0, 1.0 + 2.0**-22, tiny, 3 * tiny]
    assert numbers_of(reduced(halved), tensors.model_header(manifest)) == [1.0, 1.0 + 2.0**-23, 0.0, 2 * tiny]
    assert (reduced(alone), reduced(halved)) == (made_by_hand(alone), made_by_hand(halved))


# --- the program that docs/protocol.md#a-recomputation-in-numpy prints -------------------------------------------------------


@functools.cache
def printed() -> dict[str, Any]:
    """What that program defines, run as a stranger would run it."""
    text = (Path(__file__).resolve().parents[4] / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text.partition("<!-- recompute:begin -->")[2].partition("<!-- recompute:end -->")[0]
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0], names)
    return names


BORDERS = {
    "64 institutions, a leaf and one": (tensor_manifest(trainable={"w": (LEAF_ELEMENTS + 1,)}), 64),
    "a number before a chunk's end": (chunk_border_manifest(-1), 3),
    "a chunk": (chunk_border_manifest(0), 2),
    "a number past a chunk": (chunk_border_manifest(1), 3),
}


@pytest.mark.parametrize("name", BORDERS)
def test_the_printed_program_gives_every_bit_at_the_borders_of_leaves_and_chunks(name: str) -> None:
    manifest, institutions = BORDERS[name]
    job = wild_job(manifest, institutions, "0.7", seed=7)
    contributions = {delta.institution: (delta.num_tokens, content(delta.reader)) for delta in job.deltas}
    plain = [tensor.model_dump(mode="json") for tensor in manifest]
    with np.errstate(all="ignore"):
        assert reduced(job) == printed()["new_model"](content(job.base), contributions, plain, "0.7")
