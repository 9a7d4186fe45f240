"""Each codec's bytes, read as docs/protocol.md#codecs says: the same numbers as ours, and the same bytes refused."""

from __future__ import annotations

import random
from decimal import Decimal

import numpy as np
import pytest

from common.codecs import CODECS
from common.codecs.topk import TopkCodec
from common.errors import DeltaError
from common.reduce import inspect_delta
from common.reduce.selftest import MemoryBlob
from common.tensors import trainable_elements, trainable_header
from tests.independent.arithmetic import decoded, total
from tests.independent.statements import Failed
from tests.support.blobs import tensor_manifest
from tests.support.encoded import encoded_blob

MANIFEST = tensor_manifest(trainable={"wte": (37, 29), "bias": (5,)}, frozen={"positions": (3,)})
PLAIN, COUNT = trainable_header(MANIFEST), trainable_elements(MANIFEST)
FLIPS = 400


def a_delta(codec: str) -> bytes:
    values_N = np.random.default_rng(7).standard_normal(COUNT).astype(np.float32) / np.float32(100)
    values_N[:124] = 0  # a block with scale 0
    if codec == "topk":
        values_N[300:1000] = 0  # fewer than are kept, so that something fills up
        values_N[20:300:2] = 0
    return encoded_blob(codec, MANIFEST, values_N)


@pytest.mark.parametrize("fraction", ["0.001", "0.004", "0.01", "0.0300001", "0.1", "0.25", "0.5"])
def test_both_read_the_same_numbers_whatever_share_is_kept(fraction: str) -> None:
    manifest = tensor_manifest(trainable={"w": (400_001,)})
    chosen = TopkCodec(Decimal(fraction))
    values_N = np.random.default_rng(8).standard_normal(400_001).astype(np.float32)
    encoded = chosen.encode(values_N)
    into = np.empty(chosen.elements(len(encoded)), np.float32)
    delta = chosen.header(manifest) + bytes(encoded)
    found = decoded(delta, "topk", trainable_header(manifest), 400_001, fraction)
    assert found.tobytes() == chosen.decode(encoded, into)[:400_001].tobytes()
    assert np.count_nonzero(found) >= float(fraction) * 400_001


def ours(delta: bytes, codec: str) -> float | None:
    """The norm as the reducer's inspection finds it; None where it refuses the delta."""
    try:
        return inspect_delta(MemoryBlob(delta), PLAIN, max_l2=1e300, codec=CODECS[codec]).l2
    except DeltaError:
        return None


def theirs(delta: bytes, codec: str) -> float | None:
    try:
        values_N = decoded(delta, codec, PLAIN, COUNT).astype(np.float64)
    except Failed:
        return None
    return float(np.sqrt(total(values_N * values_N))) if np.isfinite(values_N).all() else None


@pytest.mark.parametrize("codec", CODECS)
def test_both_read_the_same_numbers(codec: str) -> None:
    delta = a_delta(codec)
    assert ours(delta, codec) is not None
    assert ours(delta, codec) == theirs(delta, codec)


@pytest.mark.parametrize("codec", CODECS)
def test_both_refuse_the_same_spoilt_bytes(codec: str) -> None:
    delta, dice = a_delta(codec), random.Random(11)
    verdicts = set()
    for _ in range(FLIPS):
        spoilt = bytearray(delta)
        if dice.random() < 0.2:
            spoilt[len(delta) - dice.randrange(1, 64)] = dice.randrange(256)  # where the last block is filled up
        else:
            spoilt[dice.randrange(len(delta))] ^= 1 << dice.randrange(8)
        assert ours(bytes(spoilt), codec) == theirs(bytes(spoilt), codec)
        verdicts.add(ours(bytes(spoilt), codec) is None)
    assert verdicts == {True, False}
