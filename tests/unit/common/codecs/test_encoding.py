"""encode_delta: one blob whatever the pieces, what it lacks kept exactly, constant memory, files that do not fit refused."""

from __future__ import annotations

import io
import math
import tracemalloc
from typing import BinaryIO

import numpy as np
import pytest
from numpy.typing import NDArray

from common.codecs import CODECS
from common.codecs import encoding as encoding_module
from common.codecs.encoding import EncodeJob, encode_delta
from common.errors import NonFiniteDelta, WrongTensors
from common.plan.model import Plan
from tests.support.blobs import tensor_manifest
from tests.support.encoded import encoded_blob

Float32s = NDArray[np.float32]

MANIFEST = tensor_manifest(trainable={"w": (1_000, 7), "b": (11,)}, frozen={"f": (3,)})
ELEMENTS = 7_011


def made(seed: int, width: float = 0.01, count: int = ELEMENTS) -> Float32s:
    return (np.random.default_rng(seed).standard_normal(count) * width).astype(np.float32)


def encode(
    name: str, delta: Float32s | bytes | BinaryIO, residual: Float32s | bytes | None = None
) -> tuple[bytes, Float32s]:
    """Blob and new residual."""
    blob, kept = bytearray(), bytearray()
    section = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "p", "codec": {"type": name}}).codec
    encode_delta(
        EncodeJob(
            codec=section,
            manifest=MANIFEST,
            delta=delta if isinstance(delta, io.IOBase) else io.BytesIO(bytes(delta)),  # type: ignore[arg-type]
            residual=None if residual is None else io.BytesIO(bytes(residual)),
            write=blob.extend,
            keep=kept.extend,
        )
    )
    return bytes(blob), np.frombuffer(bytes(kept), "<f4")


def decoded(name: str, blob: bytes) -> Float32s:
    encoded = memoryview(blob)[len(CODECS[name].header(MANIFEST)) :]
    return CODECS[name].decode(encoded, np.empty(CODECS[name].elements(len(encoded)), np.float32))[:ELEMENTS]


@pytest.mark.parametrize("at_once", [124, 1_000, 4_096])
@pytest.mark.parametrize("name", CODECS)
def test_the_blob_is_that_of_all_numbers_whatever_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, at_once: int
) -> None:
    delta, residual = made(1), made(2, 0.001)
    monkeypatch.setattr(encoding_module, "BUFFER_ELEMENTS", at_once)
    blob, kept = encode(name, delta, residual)
    assert blob == encoded_blob(name, MANIFEST, delta + residual)
    assert len(blob) == CODECS[name].encoded_size(MANIFEST)
    assert kept.tobytes() == ((delta + residual) - decoded(name, blob)).tobytes()


@pytest.mark.parametrize("name", CODECS)
def test_without_a_residual_it_is_zeros(name: str) -> None:
    assert [part.tobytes() for part in map(np.asarray, encode(name, made(1)))] == [
        part.tobytes() for part in map(np.asarray, encode(name, made(1), np.zeros(ELEMENTS, np.float32)))
    ]


def test_float32_leaves_nothing_behind() -> None:
    _, kept = encode("float32", made(1))
    assert kept.tobytes() == bytes(4 * ELEMENTS)


@pytest.mark.parametrize(("name", "most"), [("bfloat16", 0.02), ("int8", 0.02), ("int4", 0.02), ("topk", 0.2)])
def test_over_many_rounds_nothing_is_lost_for_good(name: str, most: float) -> None:
    """What arrived so far differs from what was trained so far by one residual, not by a sum of errors."""
    trained, arrived = np.zeros(ELEMENTS), np.zeros(ELEMENTS)
    residual: Float32s | None = None
    for number in range(30):
        delta = made(number) + np.float32(0.001)
        blob, residual = encode(name, delta, residual)
        trained += delta
        arrived += decoded(name, blob)
    assert residual is not None
    assert np.abs(trained - arrived - residual).max() < 1e-6
    assert np.abs(residual).max() < most


def test_short_reads_change_nothing() -> None:
    class Slow(io.BytesIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            return super().readinto(memoryview(buffer)[:777])

    assert encode("int8", Slow(made(1).tobytes()))[0] == encode("int8", made(1))[0]


@pytest.mark.parametrize("name", CODECS)
def test_files_of_another_length_are_refused(name: str) -> None:
    right = made(1).tobytes()
    for wrong, said in (
        (right[:-4], "ends after 7,010 numbers, expected 7,011"),
        (right[:-1], "ends after 7,010 numbers, expected 7,011"),
        (b"", "ends after 0 numbers, expected 7,011"),
        (right + b"\0", "goes on after the 7,011 numbers that its tensors have"),
    ):
        with pytest.raises(WrongTensors, match=f"The delta {said}"):
            encode(name, wrong)
        with pytest.raises(WrongTensors, match=f"The residual {said}"):
            encode(name, right, wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", CODECS)
def test_what_is_no_number_is_refused_by_its_tensor(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    monkeypatch.setattr(encoding_module, "BUFFER_ELEMENTS", 1_000)
    delta = made(1)
    delta[7_005] = value
    with pytest.raises(NonFiniteDelta, match=rf"The delta holds {value} in tensor 'b' at 5; it cannot be encoded\."):
        encode(name, delta)


@pytest.mark.parametrize("name", CODECS)
def test_a_sum_with_the_residual_beyond_all_numbers_is_refused(name: str) -> None:
    largest = np.zeros(ELEMENTS, np.float32)
    largest[3] = np.finfo(np.float32).max
    with pytest.raises(NonFiniteDelta, match="The delta holds inf in tensor 'w' at 3; it cannot be encoded"):
        encode(name, largest, largest)


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4"])
def test_the_largest_numbers_are_cut_and_the_rest_is_kept(name: str) -> None:
    largest = np.zeros(ELEMENTS, np.float32)
    largest[3] = np.finfo(np.float32).max
    blob, kept = encode(name, largest)
    assert 2.0**127 < decoded(name, blob)[3] < largest[3]
    assert decoded(name, blob)[3] + kept[3] == largest[3]


@pytest.mark.parametrize("name", ["int8", "int4", "topk"])
def test_memory_does_not_grow_with_the_delta(name: str) -> None:
    manifest = tensor_manifest(trainable={"w": (12_000_000,)})
    section = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "p", "codec": {"type": name}}).codec
    delta, residual = (io.BytesIO(made(seed, count=12_000_000).tobytes()) for seed in (1, 2))
    tracemalloc.start()
    try:
        encode_delta(EncodeJob(section, manifest, delta, residual, len, len))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000, f"{peak:,}"
