"""The codec `bfloat16`: a float32's upper 16 bits, little-endian.

Encoding rounds to nearest, ties to even; what would round to infinity becomes the largest finite number of its sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common import tensors
from common.codecs.base import PIECE_ELEMENTS, Fault, Float32s, Uint32s
from common.codecs.packed import packed_header
from common.errors import NonFiniteDelta
from common.statements.kinds import Tensor

_ELEMENT_BYTES = 2
_ABSOLUTE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_FIRST_ABOVE = np.uint32(0x7F7F8000)
"""The smallest float32 that would round to infinity."""


class Bfloat16Codec:
    """Half the bytes, 8 significant bits of 24, any finite float32's magnitude."""

    block_bytes = _ELEMENT_BYTES
    is_view = False
    block_elements = 1

    def header_over(self, tensors_header: bytes) -> bytes:
        elements = tensors.data_bytes(tensors_header) // tensors.ELEMENT_BYTES
        return packed_header("bfloat16", _ELEMENT_BYTES * elements)

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        return packed_header("bfloat16", _ELEMENT_BYTES * tensors.trainable_elements(manifest))

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        return len(self.header(manifest)) + _ELEMENT_BYTES * tensors.trainable_elements(manifest)

    def elements(self, encoded_bytes: int) -> int:
        return encoded_bytes // _ELEMENT_BYTES

    def fault(self, encoded: memoryview, elements: int) -> Fault | None:
        return None

    def decode(self, encoded: memoryview, into: Float32s) -> Float32s:
        halves_N = np.frombuffer(encoded, dtype="<u2")
        out_N = into[: len(halves_N)]
        bits_N = out_N.view(np.uint32)
        for start in range(0, len(halves_N), PIECE_ELEMENTS):
            bits_B = bits_N[start : start + PIECE_ELEMENTS]
            np.copyto(bits_B, halves_N[start : start + PIECE_ELEMENTS])
            bits_B <<= np.uint32(16)
        return out_N

    def encode(self, values_N: Float32s) -> memoryview:
        halves_N = np.empty(len(values_N), dtype="<u2")
        for start in range(0, len(values_N), PIECE_ELEMENTS):
            values_B = values_N[start : start + PIECE_ELEMENTS]
            np.copyto(halves_N[start : start + PIECE_ELEMENTS], _rounded(values_B, start), casting="same_kind")
        return halves_N.view(np.uint8).data


def _rounded(values_B: Float32s, start: int) -> Uint32s:
    """The upper 16 bits of the nearest bfloat16 numbers; `start` is the first one's position."""
    bits_B = values_B.view(np.uint32)
    above = (bits_B & _ABSOLUTE) >= _FIRST_ABOVE
    if above.any():
        bits_B = _saturated(bits_B, start)
    rounded_B = bits_B >> np.uint32(16)
    rounded_B &= np.uint32(1)  # of what lies in the middle, the even one
    rounded_B += np.uint32(0x7FFF)
    rounded_B += bits_B
    rounded_B >>= np.uint32(16)
    return rounded_B


def _saturated(bits_B: Uint32s, start: int) -> Uint32s:
    absolute_B = bits_B & _ABSOLUTE
    unfit = absolute_B >= _INFINITY
    if unfit.any():
        at = int(unfit.argmax())
        raise NonFiniteDelta(f"Number {start + at:,} is {float(bits_B.view(np.float32)[at])}.")
    saturated_B = bits_B.copy()
    np.copyto(saturated_B, (bits_B & np.uint32(0x80000000)) | np.uint32(0x7F7F0000), where=absolute_B >= _FIRST_ABOVE)
    return saturated_B
