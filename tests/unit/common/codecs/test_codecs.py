"""Codecs by their names in plans, and what only one of them does; what all promise: tests/contract/test_codecs.py."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from common import tensors
from common.codecs import CODECS, codec
from common.codecs.packed import packed_header
from common.errors import NonFiniteDelta
from common.plan import model as plan
from tests.support.blobs import delta_bytes, random_arrays, tensor_manifest

MANIFEST = tensor_manifest(trainable={"a": (3, 5), "b": (2,)}, frozen={"c": (4,)})
SECTIONS = get_args(get_args(plan.Codec)[0])
"""The classes of the union that a plan's `codec` is."""


def test_every_codec_of_a_plan_exists_and_no_other() -> None:
    assert [codec(section()) for section in SECTIONS] == list(CODECS.values())
    assert [section().type for section in SECTIONS] == list(CODECS)


def test_a_plan_that_names_no_codec_has_float32_and_one_that_names_an_unknown_is_refused() -> None:
    assert plan.Plan(apiVersion="llmasos/v1", name="p").codec == plan.Float32Codec()
    with pytest.raises(ValueError, match="'float32', 'bfloat16', 'int8', 'int4'"):
        plan.Plan.model_validate({"apiVersion": "llmasos/v1", "name": "p", "codec": {"type": "int2"}})


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
