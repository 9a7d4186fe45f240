"""The codec `float32`: numbers as they are, little-endian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common import tensors
from common.codecs.base import Float32s
from common.statements.kinds import Tensor


class Float32Codec:
    """Identity: a delta is a safetensors file of the trainable tensors."""

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        return tensors.trainable_header(manifest)

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        return tensors.delta_size(manifest)

    def elements(self, encoded_bytes: int) -> int:
        return encoded_bytes // tensors.ELEMENT_BYTES

    def decode(self, encoded: memoryview) -> Float32s:
        return np.frombuffer(encoded, dtype="<f4")
