"""Inspection on arrival finds what inspection of the whole blob finds, in every bit, in whatever order chunks come."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from common.blobs.reader import ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.codecs import CODECS
from common.codecs.base import DeltaCodec
from common.errors import NonFiniteDelta
from common.reduce import inspect_delta
from common.reduce.arriving import ArrivingDelta, InspectionLane
from common.statements.kinds import Tensor
from common.tensors import trainable_header
from tests.support.blobs import put_blob

ELEMENTS = 5_000_003


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(3).standard_normal(ELEMENTS, dtype=np.float32)


MANIFEST = (Tensor(name="a", shape=(ELEMENTS - 3,)), Tensor(name="b", shape=(3,)))
HEADER = trainable_header(MANIFEST)


def encoded(codec: DeltaCodec, values_N: np.ndarray) -> bytes:
    step = 1000 * codec.block_elements
    pieces = [bytes(codec.encode(values_N[start : start + step])) for start in range(0, len(values_N), step)]
    return codec.header(MANIFEST) + b"".join(pieces)


def arrive(lane: InspectionLane, source: ChunkSource, order: list[int]) -> ArrivingDelta:
    delta = ArrivingDelta(lane)
    for chunk in order:
        delta.came(chunk, source)
    return delta


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", "int4"])
def test_facts_are_those_of_the_whole_blob(name: str, values: np.ndarray, tmp_path: Path) -> None:
    codec, store = CODECS[name], FolderBlobStore(tmp_path)
    ref = put_blob(store, encoded(codec, values), "blake3")
    order = list(range(ref.chunks))
    random.Random(7).shuffle(order)
    lane = InspectionLane(codec, HEADER)
    with store.open(ref) as reader:
        expected = inspect_delta(reader, HEADER, max_l2=1e9, codec=codec)
        found = arrive(lane, reader, order).facts(reader)
        again = arrive(lane, reader, order[::-1]).facts(reader)
    assert found is not None
    assert (found.elements, found.l2.hex()) == (expected.elements, expected.l2.hex())
    assert again == found


def test_where_a_chunk_was_not_seen_to_arrive_nothing_is_said(values: np.ndarray, tmp_path: Path) -> None:
    codec, store = CODECS["float32"], FolderBlobStore(tmp_path)
    ref = put_blob(store, encoded(codec, values), "blake3")
    with store.open(ref) as reader:
        assert arrive(InspectionLane(codec, HEADER), reader, list(range(1, ref.chunks))).facts(reader) is None


@pytest.mark.parametrize("at", [0, 65_535, CHUNK_BYTES // 4, ELEMENTS - 1])
def test_a_number_that_is_none_is_left_to_the_whole_inspection(at: int, values: np.ndarray, tmp_path: Path) -> None:
    codec, store = CODECS["float32"], FolderBlobStore(tmp_path)
    wrong_N = values.copy()
    wrong_N[at] = np.nan
    ref = put_blob(store, codec.header(MANIFEST) + wrong_N.tobytes(), "blake3")
    with store.open(ref) as reader:
        assert arrive(InspectionLane(codec, HEADER), reader, list(range(ref.chunks))).facts(reader) is None
        with pytest.raises(NonFiniteDelta):
            inspect_delta(reader, HEADER, max_l2=1e9, codec=codec)


def test_another_header_is_left_to_the_whole_inspection(values: np.ndarray, tmp_path: Path) -> None:
    codec, store = CODECS["float32"], FolderBlobStore(tmp_path)
    content = bytearray(encoded(codec, values))
    content[9] ^= 1
    ref = put_blob(store, bytes(content), "blake3")
    with store.open(ref) as reader:
        assert arrive(InspectionLane(codec, HEADER), reader, list(range(ref.chunks))).facts(reader) is None
