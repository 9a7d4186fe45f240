"""Codecs by their names in plans."""

from __future__ import annotations

import numpy as np

from common import tensors
from common.codecs import CODECS, codec
from common.plan.model import Float32Codec
from tests.support.blobs import delta_bytes, random_arrays, tensor_manifest

MANIFEST = tensor_manifest(trainable={"a": (3, 5), "b": (2,)}, frozen={"c": (4,)})


def test_every_codec_of_a_plan_exists() -> None:
    assert codec(Float32Codec()) is CODECS["float32"]


def test_float32_is_the_identity_and_takes_no_copy() -> None:
    arrays = random_arrays(MANIFEST, seed=3)
    delta = delta_bytes(MANIFEST, arrays)
    chosen = codec(Float32Codec())
    header = chosen.header(MANIFEST)
    assert header == tensors.trainable_header(MANIFEST)
    assert chosen.encoded_size(MANIFEST) == len(delta)
    assert chosen.elements(len(delta) - len(header)) == 17
    encoded = memoryview(bytearray(delta))[len(header) :]
    decoded = chosen.decode(encoded)
    np.testing.assert_array_equal(decoded, np.concatenate([arrays["a"].ravel(), arrays["b"]]))
    encoded[:4] = b"\0\0\x80\x3f"
    assert decoded[0] == 1.0
