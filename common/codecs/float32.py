"""The codec `float32`: numbers as they are, little-endian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common import tensors
from common.codecs.base import PIECE_ELEMENTS, Fault, Float32s
from common.errors import NonFiniteDelta
from common.statements.kinds import Tensor


class Float32Codec:
    """Identity: a delta is a safetensors file of the trainable tensors."""

    block_bytes = tensors.ELEMENT_BYTES
    block_elements = 1
    is_view = True

    def header_over(self, tensors_header: bytes) -> bytes:
        return tensors_header

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        return tensors.trainable_header(manifest)

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        return tensors.delta_size(manifest)

    def elements(self, encoded_bytes: int) -> int:
        return encoded_bytes // tensors.ELEMENT_BYTES

    def fault(self, encoded: memoryview, elements: int) -> Fault | None:
        return None

    def decode(self, encoded: memoryview, into: Float32s) -> Float32s:
        return np.frombuffer(encoded, dtype="<f4")

    def encode(self, values_N: Float32s) -> memoryview:
        for start in range(0, len(values_N), PIECE_ELEMENTS):
            finite = np.isfinite(values_N[start : start + PIECE_ELEMENTS])
            if not finite.all():
                at = start + int(finite.argmin())
                raise NonFiniteDelta(f"Number {at:,} is {float(values_N[at])}.")
        return values_N.astype("<f4", copy=False).view(np.uint8).data
