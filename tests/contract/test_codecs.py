"""One suite for every codec: sizes, what decoding gives back, hostile bytes, and the golden bytes of each."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common import tensors
from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS, DeltaCodec
from common.codecs.base import PIECE_ELEMENTS
from common.errors import NonFiniteDelta, WrongTensors
from common.reduce import DeltaFacts, inspect_delta
from common.reduce.scalar import tree_sum
from common.reduce.selftest import MemoryBlob, numbers
from tests.support.blobs import tensor_manifest
from tests.support.encoded import SCALED, TOPK, decode_slowly, encoded_blob, topk_entries

Float32s = NDArray[np.float32]

LARGEST_SHARE = {"float32": 1.0, "bfloat16": 0.501, "int8": 0.26, "int4": 0.14, "topk": 0.0131}
"""Of the bytes of float32, headers apart."""

patterns = st.integers(0, 0x7F7FFFFF) | st.integers(0x3F000000, 0x40000000) | st.sampled_from([0, 1, 0x00800000])
finite = st.builds(
    lambda bits, sign: struct.unpack("<f", struct.pack("<I", bits | sign << 31))[0], patterns, st.integers(0, 1)
)


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(name: str) -> DeltaCodec:
    return CODECS[name]


def decode(codec: DeltaCodec, encoded: bytes | memoryview, count: int | None = None) -> Float32s:
    view = memoryview(encoded)
    with np.errstate(all="ignore"):  # hostile bytes may overflow
        return codec.decode(view, np.empty(codec.elements(len(view)), np.float32))[:count]


def around_zero(count: int, seed: int = 1, width: float = 0.01) -> Float32s:
    return (np.random.default_rng(seed).standard_normal(count) * width).astype(np.float32)


# --- sizes -------------------------------------------------------------------------------------------------------------------


def test_a_delta_takes_no_more_of_float32_than_promised(name: str, codec: DeltaCodec) -> None:
    for elements in (1_000_000, 124_439_808, 2_000_000_000):
        manifest = tensor_manifest(trainable={"w": (elements,)}, frozen={"f": (7,)}, personal={"p": (9,)})
        size = codec.encoded_size(manifest) - len(codec.header(manifest))
        assert size / (4 * elements) <= LARGEST_SHARE[name]


@pytest.mark.parametrize("elements", [1, 119, 120, 121, 124, 125, 240, 248, 70_001])
def test_the_declared_size_is_that_of_header_and_encoded_numbers(codec: DeltaCodec, elements: int) -> None:
    manifest = tensor_manifest(trainable={"w": (elements,)})
    encoded = codec.encode(around_zero(elements))
    assert codec.encoded_size(manifest) == len(codec.header(manifest)) + len(encoded)
    assert codec.elements(len(encoded)) == -(-elements // codec.block_elements) * codec.block_elements


def test_no_tensors_at_all_have_a_header_and_nothing_else(codec: DeltaCodec) -> None:
    manifest = tensor_manifest(trainable={}, frozen={"f": (3,)})
    assert codec.encoded_size(manifest) == len(codec.header(manifest))
    assert len(codec.encode(np.empty(0, np.float32))) == 0
    blob = MemoryBlob(codec.header(manifest))
    facts = inspect_delta(blob, tensors.trainable_header(manifest), max_l2=0, codec=codec)
    assert facts == DeltaFacts(elements=0, l2=0.0)


def test_no_block_lies_across_two_chunks(codec: DeltaCodec) -> None:
    manifest = tensor_manifest(trainable={"w": (3, 5), "v": (2,)})
    assert CHUNK_BYTES % codec.block_bytes == 0
    assert len(codec.header(manifest)) % codec.block_bytes == 0


def test_the_header_is_one_of_safetensors_and_the_same_from_a_manifest_and_from_a_header(
    name: str, codec: DeltaCodec
) -> None:
    manifest = tensor_manifest(trainable={"w": (3, 5), "v": (2,)}, frozen={"f": (4,)})
    header = codec.header(manifest)
    assert codec.header_over(tensors.trainable_header(manifest)) == header
    (length,) = struct.unpack("<Q", header[:8])
    assert length == len(header) - 8
    size = codec.encoded_size(manifest) - len(header)
    if name == "float32":
        assert list(json.loads(header[8:])) == ["w", "v"]
    else:
        assert json.loads(header[8:]) == {name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
        assert len(header) == max(128, codec.block_bytes)
    assert tensors.data_bytes(header) == size


# --- there and back ----------------------------------------------------------------------------------------------------------


def errors_allowed(name: str, values: Float32s) -> NDArray[np.float64]:
    """How far each number may be off, by the layout: half a step of the codec; of `topk` all of what is not kept."""
    magnitudes = np.abs(values.astype(np.float64))
    if name == "float32":
        return np.zeros_like(magnitudes)
    if name == "bfloat16":
        return np.maximum(magnitudes * 2.0**-8, 2.0**-134)
    if name == "topk":  # fewer numbers than a block has
        return np.where(magnitudes > np.sort(magnitudes)[::-1][: TOPK[0] + 1][-1], 0, magnitudes)
    largest, block = SCALED[name]
    padded = np.zeros(-(-len(values) // block) * block)
    padded[: len(values)] = magnitudes
    widest = np.repeat(padded.reshape(-1, block).max(axis=1), block)[: len(values)]
    tiny = widest < largest * 2.0**-126
    return np.where(tiny, widest, widest / largest / 2 * (1 + 2.0**-20))


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.parametrize("name", CODECS)
def test_any_finite_numbers_come_back_within_half_a_step_and_from_then_on_in_every_bit(
    name: str, data: st.DataObject
) -> None:
    codec = CODECS[name]
    count = data.draw(st.sampled_from([1, 2, 119, 120, 121, 124, 125, 300]))
    drawn = data.draw(st.lists(finite, min_size=1, max_size=min(count, 40)))
    values = np.resize(np.array(drawn, np.float32), count)
    encoded = codec.encode(values)
    decoded = decode(codec, encoded, count)
    assert codec.fault(encoded, count) is None
    assert np.isfinite(decoded).all()
    if np.abs(values).max() < 2.0**127.7:  # what lies beyond becomes the largest that there is
        assert (np.abs(decoded.astype(np.float64) - values) <= errors_allowed(name, values)).all()
    again = codec.encode(decoded)
    assert bytes(again) == bytes(encoded) if name != "float32" else decoded.tobytes() == values.tobytes()
    assert decode(codec, again, count).tobytes() == decoded.tobytes()


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.parametrize("name", CODECS)
def test_what_the_blob_lacks_is_a_float32_and_adding_it_gives_the_number_back(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    values = np.array(data.draw(st.lists(finite, min_size=1, max_size=130)), np.float32)
    assume(np.abs(values).max() < 2.0**127.7)
    decoded = decode(codec, codec.encode(values), len(values))
    lacking = values.astype(np.float64) - decoded.astype(np.float64)
    assert (lacking.astype(np.float32) == lacking).all()
    assert (decoded.astype(np.float64) + (values - decoded) == values).all()


def test_numbers_that_the_layout_has_come_back_as_they_were(name: str, codec: DeltaCodec) -> None:
    if name in SCALED:
        largest, block = SCALED[name]
        whole = np.resize(np.arange(-largest, largest + 1), (16, block)).astype(np.float32)
        whole[:, 5] = -largest
        values = np.concatenate([whole * np.float32(2.0**exponent) for exponent in (-126, -7, 0, 100)]).reshape(-1)
    elif name == "topk":
        values = np.zeros(3 * TOPK[1], np.float32)
        for start in (0, TOPK[1] + 7, 3 * TOPK[1] - TOPK[0]):
            values[start : start + TOPK[0]] = numbers(5 + start, TOPK[0]) + np.float32(0)  # no -0.0
    elif name == "bfloat16":
        values = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32)
    else:
        values = numbers(5, 10_000)
    assert decode(codec, codec.encode(values), len(values)).tobytes() == values.tobytes()


def test_every_number_is_what_the_layout_says_taken_from_the_bytes_without_numpy(name: str, codec: DeltaCodec) -> None:
    values = numbers(7, 1_000)
    encoded = bytes(codec.encode(values))
    assert decode(codec, encoded, 1_000).tolist() == decode_slowly(name, encoded)[:1_000]


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", CODECS)
def test_any_cut_between_blocks_gives_the_same_bits(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    blocks = 7 if codec.block_elements > 1 else 900
    values = numbers(data.draw(st.integers(0, 99)), blocks * codec.block_elements)
    cuts = sorted({0, blocks, *data.draw(st.lists(st.integers(0, blocks), max_size=5))})
    encoded, parts = codec.encode(values), []
    for begin, end in pairwise(cuts):
        parts.append(bytes(codec.encode(values[begin * codec.block_elements : end * codec.block_elements])))
    assert b"".join(parts) == bytes(encoded)
    assert b"".join(decode(codec, part).tobytes() for part in parts) == decode(codec, encoded).tobytes()


def test_more_than_one_piece_at_once_gives_the_same_bits(codec: DeltaCodec) -> None:
    at_once = PIECE_ELEMENTS // codec.block_elements * codec.block_elements
    values = numbers(3, 2 * at_once + 5)
    encoded = codec.encode(values)
    pieces = [codec.encode(values[start : start + at_once]) for start in range(0, len(values), at_once)]
    assert b"".join(pieces) == bytes(encoded)
    assert b"".join(decode(codec, piece).tobytes() for piece in pieces) == decode(codec, encoded).tobytes()
    assert codec.fault(encoded, len(values)) is None


def test_zeros_stay_zeros(name: str, codec: DeltaCodec) -> None:
    encoded = codec.encode(np.zeros(500, np.float32))
    assert bytes(encoded) == bytes(len(encoded))
    assert decode(codec, encoded).tobytes() == bytes(4 * codec.elements(len(encoded)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 123, 299, 65_535, 131_099])
def test_what_is_no_number_is_not_encoded(codec: DeltaCodec, value: float, at: int) -> None:
    values = around_zero(131_100)
    values[at] = value
    with pytest.raises(NonFiniteDelta, match=rf"Number {at:,} is {value}\."):
        codec.encode(values)


# --- hostile bytes -----------------------------------------------------------------------------------------------------------

MANIFEST = tensor_manifest(trainable={"wte.weight": (40, 50), "bias": (7,)}, frozen={"f": (3,)})
HEADER = tensors.trainable_header(MANIFEST)
ELEMENTS = 2007


def inspect(codec: DeltaCodec, blob: bytes, max_l2: float = math.inf) -> DeltaFacts:
    return inspect_delta(MemoryBlob(blob), HEADER, max_l2=max_l2, codec=codec)


def good(name: str) -> bytes:
    return encoded_blob(name, MANIFEST, around_zero(ELEMENTS, seed=4))


def test_a_good_delta_has_the_norm_of_its_decoded_numbers(name: str, codec: DeltaCodec) -> None:
    blob = good(name)
    values = decode(codec, blob[len(codec.header(MANIFEST)) :], ELEMENTS).astype(np.float64)
    assert inspect(codec, blob) == DeltaFacts(ELEMENTS, math.sqrt(tree_sum(values * values)))
    share = 0.65 if name == "topk" else 1  # the norm of the largest tenth of normally distributed numbers
    assert math.isclose(inspect(codec, blob).l2, share * 0.01 * math.sqrt(ELEMENTS), rel_tol=0.1)


def test_a_delta_of_another_size_or_codec_is_refused(name: str, codec: DeltaCodec) -> None:
    blob = good(name)
    for wrong in (blob + b"\0", blob[:-1], blob + bytes(codec.block_bytes), blob[: -codec.block_bytes]):
        with pytest.raises(WrongTensors, match=f"has {len(wrong):,} bytes, expected {len(blob):,} for its tensors"):
            inspect(codec, wrong)
    for other in CODECS.keys() - {name}:
        with pytest.raises(WrongTensors, match=r"Tensor '.*' is not one that the manifest lists here"):
            inspect(codec, good(other))


def test_a_header_that_spells_another_size_is_refused(name: str, codec: DeltaCodec) -> None:
    blob = good(name)
    wrong = blob.replace(b'"data_offsets":[0,', b'"data_offsets":[1,', 1)
    with pytest.raises(WrongTensors, match=r"has data_offsets \[1, "):
        inspect(codec, wrong)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", CODECS)
def test_any_bytes_are_decoded_or_refused_and_what_is_accepted_is_finite(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    manifest = tensor_manifest(trainable={"w": (data.draw(st.integers(1, 260)),)})
    header = codec.header(manifest)
    size = codec.encoded_size(manifest) - len(header)
    filling = data.draw(st.sampled_from([b"\0", b"\x01\0\x80\x3f", b"\xff"]))
    body = bytearray((filling * size)[:size])
    for _ in range(data.draw(st.integers(0, 6))):
        patch = data.draw(st.binary(min_size=1, max_size=8))[:size]
        at = data.draw(st.integers(0, size - len(patch)))
        body[at : at + len(patch)] = patch
    elements = tensors.trainable_elements(manifest)
    decoded = decode(codec, bytes(body), elements)
    try:
        facts = inspect_delta(
            MemoryBlob(header + bytes(body)), tensors.trainable_header(manifest), max_l2=math.inf, codec=codec
        )
    except NonFiniteDelta:
        assert not np.isfinite(decoded).all()
    except WrongTensors:
        assert name in FAULTY
        assert list(layout_faults(name, bytes(body), elements)) != []
    else:
        assert facts.elements == elements
        assert np.isfinite(decoded).all()
        assert math.isfinite(facts.l2)
        if name in FAULTY:  # what is accepted follows the layout to the letter
            assert list(layout_faults(name, bytes(body), elements)) == []


def layout_faults(name: str, body: bytes, elements: int) -> Iterator[str]:
    """What is wrong with encoded blocks, by a reading of the layout of its own."""
    if name == "topk":
        yield from topk_faults(body, elements)
        return
    largest, block = SCALED[name]
    codes_of = decode_slowly(name, body, scaled=False)
    block_bytes = len(body) // (-(-elements // block))
    for number in range(len(body) // block_bytes):
        (scale,) = struct.unpack_from("<f", body, number * block_bytes)
        if not (math.copysign(1, scale) > 0 and (scale == 0 or 2.0**-126 <= scale <= 2.0**128 / (largest + 1))):
            yield f"scale {scale}"
        for at, code in enumerate(codes_of[number * block : (number + 1) * block], start=number * block):
            if not -largest <= code <= largest or (code and (scale == 0 or at >= elements)):
                yield f"code {code}"


FAULTY = {*SCALED, "topk"}
"""Codecs that do not allow all bytes."""


def topk_faults(body: bytes, elements: int) -> Iterator[str]:
    kept, block = TOPK
    for number in range(len(body) // 1024):
        encoded = body[1024 * number : 1024 * (number + 1)]
        entries = list(topk_entries(encoded))
        positions = [position for position, _ in entries]
        if positions != sorted(set(positions)) or any(not 0 <= at < block for at in positions):
            yield f"positions {positions}"
        if any(number * block + at >= elements for at in positions):
            yield "a position behind the last number"
        if any(value == 0 for _, value in entries):
            yield "a zero that is kept"
        if any(encoded[4 * len(entries) : 4 * kept]) or any(encoded[4 * kept + len(entries) : 5 * kept]):
            yield "something behind the last value"


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80, 0x7F81])
def test_bfloat16_that_is_no_number_is_refused_by_its_place(bits: int) -> None:
    blob = bytearray(good("bfloat16"))
    struct.pack_into("<H", blob, 128 + 2 * 2003, bits)
    with pytest.raises(NonFiniteDelta, match=r"The delta holds (nan|inf|-inf) in tensor 'bias' at 3\."):
        inspect(CODECS["bfloat16"], bytes(blob))


SCALES_REFUSED = {
    "NaN": (0x7FC00000, "nan", NonFiniteDelta),
    "a signalling NaN": (0x7F800001, "nan", NonFiniteDelta),
    "infinity": (0x7F800000, "inf", NonFiniteDelta),
    "minus infinity": (0xFF800000, "-inf", NonFiniteDelta),
    "-0.0": (0x80000000, "-0.0", WrongTensors),
    "a negative number": (0xBF800000, "-1.0", WrongTensors),
    "the smallest subnormal number": (0x00000001, "1.401298464324817e-45", WrongTensors),
    "the largest subnormal number": (0x007FFFFF, "1.1754942106924411e-38", WrongTensors),
    "the largest float32": (0x7F7FFFFF, "3.4028234663852886e+38", WrongTensors),
}


@pytest.mark.parametrize("kind", SCALES_REFUSED)
@pytest.mark.parametrize("scaled", SCALED)
def test_a_scale_out_of_range_is_refused_by_its_block_and_tensor(scaled: str, kind: str) -> None:
    bits, shown, error = SCALES_REFUSED[kind]
    chosen, blob = CODECS[scaled], bytearray(good(scaled))
    struct.pack_into("<I", blob, 128 + 2 * chosen.block_bytes, bits)
    first = 2 * chosen.block_elements
    with pytest.raises(error) as caught:
        inspect(chosen, bytes(blob))
    assert caught.value.message == (
        f"Block 2 of the delta holds scale {shown}, in tensor 'wte.weight' at {first}; "
        f"expected scale 0, or from 2^-126 to 2^{ {'int8': 121, 'int4': 125}[scaled] }."
    )


@pytest.mark.parametrize("scaled", SCALED)
def test_the_bounds_of_scales_themselves_are_allowed(scaled: str) -> None:
    largest, _ = SCALED[scaled]
    chosen = CODECS[scaled]
    one = chosen.encode(np.ones(ELEMENTS, np.float32))
    for scale, accepted in ((2.0**-126, True), (2.0**128 / (largest + 1), True), (2.0**128 / largest, False)):
        blob = bytearray(chosen.header(MANIFEST) + bytes(one))
        struct.pack_into("<f", blob, 128, scale)
        if accepted:
            assert math.isfinite(inspect(chosen, bytes(blob)).l2)
        else:
            with pytest.raises(WrongTensors, match="expected scale 0, or from"):
                inspect(chosen, bytes(blob))


FORBIDDEN = {"int8": (4 + 100, 0x80, 100, -128), "int4": (4 + 50, 0x83, 101, -8)}
"""Byte in a block, what it is made, which number of the block is wrong then, and its code."""


@pytest.mark.parametrize("block", [0, 5, 16])
@pytest.mark.parametrize("scaled", SCALED)
def test_the_code_below_all_others_is_refused_by_its_tensor(scaled: str, block: int) -> None:
    (at, byte, number, code), (largest, _), chosen = FORBIDDEN[scaled], SCALED[scaled], CODECS[scaled]
    blob = bytearray(good(scaled))
    in_block = at if block < 16 else 4
    number = number if block < 16 else (0 if scaled == "int8" else 1)
    blob[128 + block * chosen.block_bytes + in_block] = byte
    element = block * chosen.block_elements + number
    place = f"'wte.weight' at {element:,}" if element < 2000 else f"'bias' at {element - 2000}"
    expected = (
        f"Block {block} of the delta holds code {code}, in tensor {place}; expected code -{largest} to {largest}."
    )
    with pytest.raises(WrongTensors) as caught:
        inspect(chosen, bytes(blob))
    assert caught.value.message == expected
    assert caught.value.fix == "Encode the delta as docs/protocol.md#codecs says."


def test_a_lower_four_bits_are_looked_at_too() -> None:
    blob = bytearray(good("int4"))
    blob[128 + 4] = 0x38
    with pytest.raises(WrongTensors, match=r"holds code -8, in tensor 'wte\.weight' at 0; expected code -7 to 7\."):
        inspect(CODECS["int4"], bytes(blob))


@pytest.mark.parametrize("scaled", SCALED)
def test_a_block_of_scale_0_has_codes_0(scaled: str) -> None:
    chosen = CODECS[scaled]
    blob = bytearray(good(scaled))
    blob[128 : 128 + 2 * chosen.block_bytes] = bytes(2 * chosen.block_bytes)
    assert inspect(chosen, bytes(blob)).elements == ELEMENTS
    blob[128 + chosen.block_bytes + 4] = 0x05
    expected = rf"Block 1 of the delta holds code 5, in tensor 'wte\.weight' at {chosen.block_elements}; "
    with pytest.raises(WrongTensors, match=expected + r"expected code 0 beside scale 0\."):
        inspect(chosen, bytes(blob))


@pytest.mark.parametrize("scaled", SCALED)
def test_what_fills_the_last_block_up_is_0(scaled: str) -> None:
    chosen = CODECS[scaled]
    blob = bytearray(good(scaled))
    blob[-1] = 0x30
    code = 0x30 if scaled == "int8" else 3
    with pytest.raises(WrongTensors, match=rf"Block 16 of the delta holds code {code}, behind the last number; "):
        inspect(chosen, bytes(blob))


@pytest.mark.parametrize("scaled", SCALED)
def test_a_fault_in_a_later_chunk_is_found_at_its_place(scaled: str) -> None:
    chosen = CODECS[scaled]
    blocks = CHUNK_BYTES // chosen.block_bytes + 3
    manifest = tensor_manifest(
        trainable={"a": ((blocks - 2) * chosen.block_elements,), "b": (chosen.block_elements + 1,)}
    )
    values = np.zeros(tensors.trainable_elements(manifest), np.float32)
    blob = bytearray(encoded_blob(scaled, manifest, values))
    header = tensors.trainable_header(manifest)
    assert inspect_delta(MemoryBlob(bytes(blob)), header, max_l2=0, codec=chosen).elements == len(values)
    at = 128 + (blocks - 2) * chosen.block_bytes
    assert at > CHUNK_BYTES
    struct.pack_into("<f", blob, at, -2.0)
    with pytest.raises(
        WrongTensors, match=rf"Block {blocks - 2:,} of the delta holds scale -2\.0, in tensor 'b' at 0; "
    ):
        inspect_delta(MemoryBlob(bytes(blob)), header, max_l2=0, codec=chosen)
    blob[at : at + 4] = bytes(4)
    blob[-1] = 1
    with pytest.raises(
        WrongTensors, match=rf"Block {blocks - 1:,} of the delta holds code \d+, behind the last number"
    ):
        inspect_delta(MemoryBlob(bytes(blob)), header, max_l2=0, codec=chosen)


# --- hostile bytes of topk ---------------------------------------------------------------------------------------------------

GROUPS = 5 * TOPK[0]
"""Where in a block the groups begin."""


def sparse(**kept: float) -> bytearray:
    """A delta blob whose first block keeps these: `at_7=0.5`."""
    values = np.zeros(ELEMENTS, np.float32)
    for at, value in kept.items():
        values[int(at.removeprefix("at_"))] = value
    return bytearray(encoded_blob("topk", MANIFEST, values))


TOPK_REFUSED = {
    "a position twice": (GROUPS, 0b0011, "position 7 after 7", "'wte.weight' at 7", "ascending positions"),
    "positions that go back": (4 * TOPK[0], 200, "position 7 after 200", "'wte.weight' at 7", "ascending positions"),
    "a kept zero": (3, 0, "value 0.0", "'wte.weight' at 7", "another value than 0 where one is kept"),
    "one behind the delta's last": (GROUPS + 2, 2, "position 3,840", "behind the last number", "positions below 2,007"),
    "one behind the block": (
        GROUPS + 10, 128, "position 21,760", "'wte.weight' at 0", "positions below 19,700",
    ),
    "a value too many": (
        4 * 5 + 1, 9, "value 5 with bits 0x00000900, 0", "'wte.weight' at 0", "zeros behind the 2 that its positions name",
    ),
    "a place too many": (
        4 * TOPK[0] + 9, 1, "value 9 with bits 0x00000000, 1", "'wte.weight' at 0",
        "zeros behind the 2 that its positions name",
    ),
}  # fmt: skip
"""Byte in a block that keeps numbers 7 and 263, what it is made, and what is said of it."""


@pytest.mark.parametrize("kind", TOPK_REFUSED)
def test_a_block_of_topk_that_is_no_writers_is_refused(kind: str) -> None:
    at, byte, found, where, expected = TOPK_REFUSED[kind]
    blob = sparse(at_7=0.5, at_263=-2.0)
    assert inspect(CODECS["topk"], bytes(blob)).l2 == math.sqrt(4.25)
    blob[1024 + at] = byte
    if kind == "positions that go back":
        blob[1024 + GROUPS] = 0b0011
    place = where if where.startswith("behind") else f"in tensor {where}"
    with pytest.raises(WrongTensors) as caught:
        inspect(CODECS["topk"], bytes(blob))
    assert caught.value.message == f"Block 0 of the delta holds {found}, {place}; expected {expected}."


def test_topk_keeps_no_minus_zero_and_nothing_without_a_place() -> None:
    blob = sparse(at_7=0.5)
    struct.pack_into("<f", blob, 1024, -0.0)
    with pytest.raises(WrongTensors, match=r"holds value -0\.0, in tensor 'wte\.weight' at 7; expected another value"):
        inspect(CODECS["topk"], bytes(blob))
    blob = sparse(at_7=0.5)
    struct.pack_into("<f", blob, 1024 + 4, -0.0)
    with pytest.raises(WrongTensors, match=r"holds value 1 with bits 0x80000000, 0, .*; expected zeros behind the 1 "):
        inspect(CODECS["topk"], bytes(blob))


def test_topk_has_no_more_positions_than_values() -> None:
    blob = bytearray(good("topk"))
    blob[1024 + GROUPS :] = b"\xff" * (1024 - GROUPS)
    blob[1024 + 4 * TOPK[0] : 1024 + GROUPS] = bytes(range(TOPK[0]))
    with pytest.raises(
        WrongTensors, match=r"holds more than 197 positions, in tensor '.*' at 0; expected at most 197\."
    ):
        inspect(CODECS["topk"], bytes(blob))


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001])
def test_a_kept_value_that_is_no_number_is_refused_by_its_place(bits: int) -> None:
    blob = sparse(at_2003=1.0)
    struct.pack_into("<I", blob, 1024, bits)
    with pytest.raises(NonFiniteDelta, match=r"The delta holds (nan|inf|-inf) in tensor 'bias' at 3\."):
        inspect(CODECS["topk"], bytes(blob))


def test_a_fault_in_a_later_block_of_topk_is_found_at_its_place() -> None:
    _, block = TOPK
    manifest = tensor_manifest(trainable={"a": (9 * block,), "b": (2 * block - 5,)})
    values = around_zero(11 * block - 5)
    blob = bytearray(encoded_blob("topk", manifest, values))
    blob[1024 + 9 * 1024] = blob[1024 + 9 * 1024 + 1] = blob[1024 + 9 * 1024 + 2] = blob[1024 + 9 * 1024 + 3] = 0
    first = int(np.flatnonzero(decode(CODECS["topk"], bytes(blob[1024 : 1024 + 1024 * 11]))[9 * block :])[0])
    with pytest.raises(WrongTensors, match=r"Block 9 of the delta holds value 0\.0, in tensor 'b' at \d+; ") as caught:
        inspect_delta(
            MemoryBlob(bytes(blob)), tensors.trainable_header(manifest), max_l2=math.inf, codec=CODECS["topk"]
        )
    assert int(caught.value.message.split(" at ")[1].split(";")[0].replace(",", "")) < first


# --- golden bytes ------------------------------------------------------------------------------------------------------------

GOLDEN = {
    "float32": (
        "ba05210a19b32c34e65c93d0a54d325b6a87a3076178ea9eee187641e600650b",
        "b0f75300d0e8c73e13b126b864015e392927dc3939461f3f",
    ),
    "bfloat16": (
        "d31768e47bab4b5c9e1a73eabda3ee95b31d93468e45b50904dc9e040c68f0d8",
        "5400c83e27b85e39dc391f3f99bfb8bc8bbe6c3d39380080",
    ),
    "int8": (
        "2661f2715846a877bcc22b5d36270ddc35123d56999166ce08603b986223e66e",
        "d4346b3c001b0000002badfeed040000004300000000ff00",
    ),
    "int4": (
        "0e39579690dfccec37d1d6e4cbbbb809e42b405ee00eeb85cd93307309b9425d",
        "865a853e1000200b0f00400000000f100d020003000e0000",
    ),
    "topk": (
        "b5654b28f99db095edf4c6788434ed67bcf2c3b287108fe35d680c31c5abdcf0",
        "d0e8c73e39461f3f56f098bfcd168bbe4bfb773fa28787be",
    ),
}
"""SHA-256 of the blob of 1,000 numbers made from integers, and the first 24 bytes after its header."""


def test_the_bytes_of_a_delta_never_change(name: str) -> None:
    manifest = tensor_manifest(trainable={"w": (990,), "b": (10,)})
    blob = encoded_blob(name, manifest, numbers(11, 1_000))
    start = len(CODECS[name].header(manifest))
    assert (hashlib.sha256(blob).hexdigest(), blob[start : start + 24].hex()) == GOLDEN[name]
