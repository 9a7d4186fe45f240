"""Rounds of encoded deltas: bits that depend on nothing else, and memory that 4-bit numbers do not multiply."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from common import tensors
from common.blobs.reader import ChunkSource
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.codecs import CODECS
from common.errors import ModelOverflow, WrongTensors
from common.reduce import ReduceJob, inspect_delta, reduce_round
from common.reduce import round as rounds
from common.reduce import window as windows
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.selftest import MemoryBlob
from tests.support.blobs import MadeDelta, model_bytes, recompute_model, tensor_manifest
from tests.support.encoded import decode_slowly, encoded_blob
from tests.support.wild_rounds import reduced, reordered, wild_job
from tests.unit.common.reduce.test_independence import cut_into_chunks

ENCODED = [name for name in CODECS if name != "float32"]
MEGABYTE = 10**6


@pytest.mark.parametrize("name", ENCODED)
def test_a_round_is_the_documented_one_over_the_numbers_that_the_bytes_say(name: str) -> None:
    manifest = tensor_manifest(trainable={"w": (301,), "b": (3, 2)}, frozen={"f": (5,)})
    job = wild_job(manifest, 5, "0.7", codec=name)
    header, codec_header = tensors.model_header(manifest), CODECS[name].header(manifest)

    def arrays(values: np.ndarray) -> dict[str, np.ndarray]:
        return {"w": values[:301], "b": values[301:307].reshape(3, 2), "f": values[307:]}

    decoded = [
        np.array(decode_slowly(name, content(delta.reader)[len(codec_header) :])[:307], np.float32)
        for delta in job.deltas
    ]
    made = [
        MadeDelta(delta.institution, delta.num_tokens, arrays(values))
        for delta, values in zip(job.deltas, decoded, strict=True)
    ]
    base = arrays(np.frombuffer(content(job.base)[len(header) :], "<f4"))
    assert reduced(job) == model_bytes(manifest, recompute_model(manifest, base, made, "0.7"))


def content(source: ChunkSource) -> bytes:
    assert isinstance(source, MemoryBlob)
    return source.content


@pytest.mark.parametrize("chunk_bytes", [128, 384, 4096, 70_016])
@pytest.mark.parametrize("name", ENCODED)
def test_windows_lanes_and_order_change_no_bit(monkeypatch: pytest.MonkeyPatch, name: str, chunk_bytes: int) -> None:
    chunk_bytes = -(-chunk_bytes // CODECS[name].block_bytes) * CODECS[name].block_bytes
    elements = 3_001 if chunk_bytes < 1024 else LEAF_ELEMENTS + 7_001
    manifest = tensor_manifest(trainable={"w": (elements,), "s": ()}, frozen={"f": (77,)})
    job, header = wild_job(manifest, 4, "0.7", codec=name), tensors.trainable_header(manifest)

    def results() -> tuple[str, list[str]]:
        facts = [inspect_delta(each.reader, header, max_l2=float("inf"), codec=CODECS[name]) for each in job.deltas]
        return hashlib.sha256(reduced(job)).hexdigest(), [each.l2.hex() for each in facts]

    whole = results()
    cut_into_chunks(monkeypatch, chunk_bytes)
    for lanes, most in ((1, 4_200_000), (2, 4_200_000), (3, 4_200_000), (2, 1_000), (2, 30_000)):
        monkeypatch.setattr(rounds, "LANES", lanes)
        monkeypatch.setattr(windows, "WINDOW_ELEMENTS", most)
        assert results() == whole
    assert hashlib.sha256(reduced(reordered(job, [2, 0, 3, 1]))).hexdigest() == whole[0]


class Watched:
    """A blob that notes which threads read it."""

    def __init__(self, content: bytes) -> None:
        self._source = MemoryBlob(content)
        self.threads: set[str] = set()

    @property
    def ref(self) -> BlobRef:
        return self._source.ref

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        self.threads.add(threading.current_thread().name)
        return self._source.read_chunk(index, into)


def wide_job(name: str, chunks: int = 2) -> ReduceJob:
    """Two institutions, whose deltas have that many chunks, or four windows of a chunk that has more."""
    codec = CODECS[name]
    elements = (
        min(chunks * CHUNK_BYTES // codec.block_bytes * codec.block_elements, 4 * windows.WINDOW_ELEMENTS) - 1_000
    )
    manifest = tensor_manifest(trainable={"w": (elements,)})
    job = wild_job(tensor_manifest(trainable={"w": (3,)}), 2, "1", codec=name)
    values = np.resize(np.random.default_rng(1).standard_normal(100_003).astype(np.float32), elements)
    delta = encoded_blob(name, manifest, values)
    base = MemoryBlob(tensors.model_header(manifest) + values.tobytes())
    deltas = [replace(each, reader=Watched(delta)) for each in job.deltas]
    return replace(job, manifest=manifest, base=base, deltas=deltas)


@pytest.mark.parametrize("name", ENCODED)
def test_memory_is_bounded_where_a_chunk_holds_millions_of_numbers(name: str) -> None:
    job = wide_job(name)
    model = hashlib.sha256()
    tracemalloc.start()
    try:
        reduce_round(job, model.update)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reader = job.deltas[0].reader
    assert isinstance(reader, Watched)
    assert 1 <= len({thread for thread in reader.threads if thread.startswith("reduce")}) <= rounds.LANES
    assert peak < 90 * MEGABYTE, f"{peak:,}"


def test_a_window_is_a_chunk_or_an_equal_part_of_it() -> None:
    header = tensors.trainable_header(tensor_manifest(trainable={"w": (200_000_000,)}))
    parts = {"float32": 1, "bfloat16": 1, "int8": 1, "int4": 2, "topk": 20}
    for name, codec in CODECS.items():
        window = windows.DeltaWindow(codec, header)
        assert window.chunks * parts[name] - parts[name] < window.windows <= window.chunks * parts[name]
        numbers = [window.window_elements(index) for index in range(window.windows)]
        assert sum(numbers) == 200_000_000
        assert max(numbers) == window.max_elements <= windows.WINDOW_ELEMENTS
        assert min(numbers) > 0


@pytest.mark.parametrize("name", ["int4", "topk"])
def test_inspecting_takes_a_chunk_and_a_piece(name: str) -> None:
    job = wide_job(name)
    header = tensors.trainable_header(job.manifest)
    tracemalloc.start()
    try:
        facts = inspect_delta(job.deltas[0].reader, header, max_l2=float("inf"), codec=CODECS[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert facts.elements == tensors.trainable_elements(job.manifest)
    assert peak < 10 * MEGABYTE, f"{peak:,}"


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_what_is_not_allowed_never_becomes_a_model_that_is_none(name: str) -> None:
    """The reducer takes sealed deltas, which were inspected; one that was not still gives no NaN."""
    job = wild_job(tensor_manifest(trainable={"w": (300,)}), 2, "1", codec=name)
    spoiled = bytearray(content(job.deltas[0].reader))
    spoiled[128:132] = b"\x00\x00\xc0\x7f"
    with pytest.raises(ModelOverflow, match="The new model would hold nan in tensor 'w' at 0"):
        reduced(replace(job, deltas=[replace(job.deltas[0], reader=MemoryBlob(bytes(spoiled)))]))


@pytest.mark.parametrize("name", ENCODED)
def test_a_float32_delta_in_a_round_of_another_codec_is_refused(name: str) -> None:
    manifest = tensor_manifest(trainable={"w": (300,)})
    job, plain = wild_job(manifest, 1, "1", codec=name), wild_job(manifest, 1, "1")
    with pytest.raises(WrongTensors, match="Tensor 'w' is not one that the manifest lists here"):
        reduced(replace(job, deltas=plain.deltas))
