"""Codecs by their names in plans, and what only one of them does; what all promise: tests/contract/test_codecs.py."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

import numpy as np
import pytest

from common import tensors
from common.codecs import CODECS, codec
from common.codecs.packed import packed_header
from common.codecs.topk import TopkCodec, layout
from common.errors import NonFiniteDelta
from common.plan import codecs as plan
from common.plan.model import Plan
from tests.support.blobs import delta_bytes, random_arrays, tensor_manifest

MANIFEST = tensor_manifest(trainable={"a": (3, 5), "b": (2,)}, frozen={"c": (4,)})
SECTIONS = get_args(get_args(plan.Codec)[0])
"""The classes of the union that a plan's `codec` is."""


def test_every_codec_of_a_plan_exists_and_no_other() -> None:
    for section, known in zip(SECTIONS, CODECS.values(), strict=True):
        assert codec(section()).encoded_size(MANIFEST) == known.encoded_size(MANIFEST)
        assert codec(section()).header(MANIFEST) == known.header(MANIFEST)
    assert [section().type for section in SECTIONS] == list(CODECS)


def test_a_plan_that_names_no_codec_has_float32_and_one_that_names_an_unknown_is_refused() -> None:
    assert Plan(apiVersion="llmasos/v1", name="p").codec == plan.Float32Codec()
    with pytest.raises(ValueError, match="'float32', 'bfloat16', 'int8', 'int4', 'topk'"):
        Plan.model_validate({"apiVersion": "llmasos/v1", "name": "p", "codec": {"type": "int2"}})


def test_float32_is_the_identity_and_takes_no_copy() -> None:
    arrays = random_arrays(MANIFEST, seed=3)
    delta = delta_bytes(MANIFEST, arrays)
    chosen = CODECS["float32"]
    header = chosen.header(MANIFEST)
    assert header == tensors.trainable_header(MANIFEST)
    assert chosen.encoded_size(MANIFEST) == len(delta)
    assert chosen.elements(len(delta) - len(header)) == 17
    encoded = memoryview(bytearray(delta))[len(header) :]
    decoded = chosen.decode(encoded, np.empty(17, np.float32))
    np.testing.assert_array_equal(decoded, np.concatenate([arrays["a"].ravel(), arrays["b"]]))
    encoded[:4] = b"\0\0\x80\x3f"
    assert decoded[0] == 1.0
    values = np.arange(3, dtype=np.float32)
    assert np.shares_memory(np.frombuffer(chosen.encode(values), np.float32), values)


def test_a_packed_header_is_written_as_documented() -> None:
    header = packed_header("int8", 1_310_720)
    assert header[:8] == (120).to_bytes(8, "little")
    assert header[8:].rstrip(b" ") == b'{"int8":{"dtype":"U8","shape":[1310720],"data_offsets":[0,1310720]}}'
    assert len(packed_header("bfloat16", 2**62)) == 128


# --- bfloat16 ----------------------------------------------------------------------------------------------------------------


def as_bfloat16(*patterns: int) -> list[int]:
    values = np.array(patterns, dtype=np.uint32).view(np.float32)
    return np.frombuffer(CODECS["bfloat16"].encode(values), "<u2").tolist()


def test_bfloat16_rounds_to_nearest_and_in_the_middle_to_even() -> None:
    below, middle, above = 0x3F807FFF, 0x3F808000, 0x3F808001
    assert as_bfloat16(below, middle, above) == [0x3F80, 0x3F80, 0x3F81]
    assert as_bfloat16(0x3F818000, 0xBF818000) == [0x3F82, 0xBF82]
    assert as_bfloat16(0x00008000, 0x00018000, 0x007FFFFF) == [0x0000, 0x0002, 0x0080]
    assert as_bfloat16(0x80000000, 0x3FFFFFFF) == [0x8000, 0x4000]


def test_bfloat16_keeps_what_is_finite_finite() -> None:
    assert as_bfloat16(0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0xFF7FFFFF) == [0x7F7F, 0x7F7F, 0x7F7F, 0xFF7F]
    with pytest.raises(NonFiniteDelta, match=r"Number 1 is -inf\."):
        as_bfloat16(0x7F7FFFFF, 0xFF800000)


# --- scales ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "largest"), [("int8", 127), ("int4", 7)])
def test_the_scale_is_the_largest_magnitude_divided_by_the_largest_code(name: str, largest: int) -> None:
    chosen = CODECS[name]
    values = np.zeros(chosen.block_elements, np.float32)
    values[3] = -0.3
    (scale,) = np.frombuffer(chosen.encode(values)[:4], "<f4")
    assert scale == np.float32(0.3) / np.float32(largest)


@pytest.mark.parametrize(("name", "largest"), [("int8", 127), ("int4", 7)])
def test_no_scale_is_subnormal_and_none_beyond_what_every_code_can_be_multiplied_by(name: str, largest: int) -> None:
    chosen, tiny, huge = CODECS[name], np.float32(largest * 2.0**-126), np.finfo(np.float32).max
    blocks = [np.full(chosen.block_elements, value, np.float32) for value in (tiny, tiny * 0.99, huge, -huge)]
    encoded = chosen.encode(np.concatenate(blocks))
    scales = np.frombuffer(encoded, "<f4")[:: chosen.block_bytes // 4]
    largest_scale = 2.0**128 / (largest + 1)
    assert scales.tolist() == [2.0**-126, 0, largest_scale, largest_scale]
    decoded = chosen.decode(encoded, np.empty(4 * chosen.block_elements, np.float32))
    expected = [tiny, 0, largest * largest_scale, -largest * largest_scale]
    assert decoded.reshape(4, -1)[:, 0].tolist() == expected
    assert chosen.fault(encoded, 4 * chosen.block_elements) is None


def test_int4_puts_the_first_of_two_codes_into_the_lower_bits() -> None:
    values = np.zeros(120, np.float32)
    values[:5] = [7, -7, 1, -1, 2]
    assert bytes(CODECS["int4"].encode(values)[:7]) == b"\x00\x00\x80\x3f" + b"\x97\xf1\x02"


def test_int8_writes_twos_complement() -> None:
    values = np.zeros(124, np.float32)
    values[:4] = [127, -127, 1, -1]
    assert bytes(CODECS["int8"].encode(values)[:8]) == b"\x00\x00\x80\x3f" + b"\x7f\x81\x01\xff"


# --- topk --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "kept", "elements"),
    [("0.001", 182, 182_000), ("0.01", 197, 19_700), ("0.07", 199, 2_842), ("0.1", 199, 1_990), ("0.5", 199, 398)],
)
def test_a_block_of_topk_keeps_as_many_numbers_as_have_room(fraction: str, kept: int, elements: int) -> None:
    assert layout(Decimal(fraction)) == (kept, elements)

    def needed(numbers: int) -> int:
        groups = -(-int(numbers / Decimal(fraction)) // 256)
        return 5 * numbers + -(-(numbers + groups - 1) // 8)

    assert needed(kept) <= 1024 < needed(kept + 1)
    assert codec(plan.TopkCodec(fraction=Decimal(fraction))).block_elements == elements


@pytest.mark.parametrize("fraction", ["0", "0.0009", "0.5001", "-0.1", "NaN"])
def test_a_plan_keeps_a_share_that_saves_something(fraction: str) -> None:
    with pytest.raises(ValueError, match="fraction"):
        Plan.model_validate({"apiVersion": "llmasos/v1", "name": "p", "codec": {"type": "topk", "fraction": fraction}})


@pytest.mark.parametrize("fraction", ["0.001", "0.01", "0.03", "0.5"])
def test_topk_keeps_the_largest_of_each_block_and_of_equals_the_first(fraction: str) -> None:
    chosen = TopkCodec(Decimal(fraction))
    kept, block = layout(Decimal(fraction))
    values = np.random.default_rng(3).integers(-300, 300, 3 * block + 17).astype(np.float32)  # many are equal
    decoded = chosen.decode(chosen.encode(values), np.empty(4 * block, np.float32))
    assert chosen.fault(chosen.encode(values), len(values)) is None
    for start in range(0, len(values), block):
        numbers = values[start : start + block]
        largest_first = sorted(range(len(numbers)), key=lambda at: (-abs(numbers[at]), at))
        expected = np.zeros(block, np.float32)
        for at in largest_first[:kept]:
            expected[at] = numbers[at]
        assert decoded[start : start + block].tolist() == expected.tolist()


def test_topk_writes_values_then_places_then_how_many_each_group_has() -> None:
    values = np.zeros(1_000, np.float32)
    values[[3, 255, 256, 900]] = [1.0, -2.0, 0.5, 2.0**-149]
    block = bytes(CODECS["topk"].encode(values))
    assert len(block) == 1024
    assert block[:16] == b"\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f\x01\0\0\0"
    assert block[16 : 4 * 197] == bytes(4 * 193)
    assert block[4 * 197 : 5 * 197] == bytes([3, 255, 0, 900 - 3 * 256]) + bytes(193)
    assert block[5 * 197 :] == bytes([0b1001011]) + bytes(38), "two, then one, then none, then one"


def test_of_bytes_that_are_not_allowed_topk_decodes_what_has_a_place() -> None:
    every_bit = b"\xff" * 1024
    decoded = CODECS["topk"].decode(memoryview(every_bit * 2), np.empty(39_400, np.float32))
    assert np.flatnonzero(decoded).tolist() == [255, 19_700 + 255]
    assert CODECS["topk"].fault(memoryview(every_bit), 19_700) is not None
