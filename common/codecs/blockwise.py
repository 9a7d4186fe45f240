"""Codecs of blocks that have one scale: a number is scale × a small whole number, its code.

    block = scale, float32, 4 bytes, little-endian | codes
    number = float32(scale) × float32(code)             one multiplication, rounded once

scale is +0.0, or from 2^-126 to 2^128 / (largest code + 1): every number is normal or +0.0, and finite. A block of scale 0 has
codes 0 only. What fills the last block up behind the last number is code 0.

Encoding: scale = float32(largest magnitude ÷ largest code), 0 if that is below 2^-126; code = scaled number to the nearest,
ties to even. So each number is off by half a scale at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.codecs.base import PIECE_ELEMENTS, Bytes, Fault, Float32s, Uint32s
from common.codecs.packed import packed_header
from common.errors import NonFiniteDelta
from common.statements.kinds import Tensor

Int8s = NDArray[np.int8]
Int32s = NDArray[np.int32]

SCALE_BYTES = 4
_ABSOLUTE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_SMALLEST_SCALE = np.uint32(0x00800000)
"""2^-126, as bits: among positive numbers the order of bits is the order of numbers."""
_TO_WHOLE = np.float32(1.5 * 2**23)
"""Between 2^23 and 2^24 float32 holds whole numbers only: added to a small number, it rounds that to a whole one."""
_TO_WHOLE_BITS = np.int32(0x4B400000)


class Codes(Protocol):
    """How whole numbers lie in a block. Blocks are uint8, shape (R, block_bytes), contiguous, scales included."""

    block_bytes: int
    block_elements: int
    largest: int

    def unpack(self, blocks_RB: Bytes) -> Int8s:
        """Codes, shape (R, block_elements); may be a view."""
        ...

    def pack(self, codes_RK: Int32s, blocks_RB: Bytes) -> None:
        """Write codes from -largest to largest behind the scales."""
        ...

    def forbidden(self, blocks_RB: Bytes) -> bool:
        """Whether any code is -largest - 1; faster than to unpack."""
        ...


class BlockwiseCodec:
    """All of it but how codes lie in their bytes."""

    is_view = False

    def __init__(self, name: str, codes: Codes) -> None:
        self._name = name
        self._codes = codes
        self.block_bytes = codes.block_bytes
        self.block_elements = codes.block_elements
        largest_scale = np.full(1, 2**128 // (codes.largest + 1), dtype=np.float32)
        self._largest_scale = np.uint32(largest_scale.view(np.uint32)[0])
        self._scales_expected = f"scale 0, or from 2^-126 to 2^{128 - codes.largest.bit_length()}"
        self._rows = PIECE_ELEMENTS // self.block_elements

    def header_over(self, tensors_header: bytes) -> bytes:
        return self._header(tensors.data_bytes(tensors_header) // tensors.ELEMENT_BYTES)

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        return self._header(tensors.trainable_elements(manifest))

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        elements = tensors.trainable_elements(manifest)
        return len(self._header(elements)) + self._encoded_bytes(elements)

    def elements(self, encoded_bytes: int) -> int:
        return encoded_bytes // self.block_bytes * self.block_elements

    def _header(self, elements: int) -> bytes:
        return packed_header(self._name, self._encoded_bytes(elements))

    def _encoded_bytes(self, elements: int) -> int:
        return -(-elements // self.block_elements) * self.block_bytes

    def _pieces(self, blocks: int) -> Iterator[slice]:
        for first in range(0, blocks, self._rows):
            yield slice(first, min(blocks, first + self._rows))

    # --- decoding ------------------------------------------------------------------------------------------------------------

    def decode(self, encoded: memoryview, into: Float32s) -> Float32s:
        blocks_RB = self._blocks(encoded)
        out_N = into[: self.elements(len(encoded))]
        out_RK = out_N.reshape(-1, self.block_elements)
        for rows in self._pieces(len(blocks_RB)):
            part_RB, part_RK = blocks_RB[rows], out_RK[rows]
            np.copyto(part_RK, self._codes.unpack(part_RB))  # whole numbers below 2^7: exact
            np.multiply(part_RK, _scales(part_RB), out=part_RK)
        return out_N

    def _blocks(self, encoded: memoryview) -> Bytes:
        return np.frombuffer(encoded, dtype="u1").reshape(-1, self.block_bytes)

    # --- what is not allowed -------------------------------------------------------------------------------------------------

    def fault(self, encoded: memoryview, elements: int) -> Fault | None:
        blocks_RB = self._blocks(encoded)
        for rows in self._pieces(len(blocks_RB)):
            if not self._is_clean(blocks_RB[rows]):
                return self._first_fault(blocks_RB[rows], rows.start, elements)
        return self._padding_fault(blocks_RB, elements, 0)

    def _is_clean(self, blocks_RB: Bytes) -> bool:
        scale_bits_R = _scales(blocks_RB).view(np.uint32)
        normal = (scale_bits_R >= _SMALLEST_SCALE) & (scale_bits_R <= self._largest_scale)
        if not normal.all():
            empty = ~normal[:, 0]  # a block whose bytes are all 0 has scale 0 and codes 0
            if (blocks_RB[empty] != 0).any():
                return False
        return not self._codes.forbidden(blocks_RB)

    def _first_fault(self, blocks_RB: Bytes, first: int, elements: int) -> Fault | None:
        """Slow and seldom: which block of those from number `first` on, and what of it."""
        scales = _scales(blocks_RB)[:, 0]
        for row, block in enumerate(blocks_RB):
            number, bits = first + row, int(scales.view(np.uint32)[row])
            element = number * self.block_elements
            if bits and not int(_SMALLEST_SCALE) <= bits <= int(self._largest_scale):
                found, non_finite = f"scale {float(scales[row])}", bits & int(_ABSOLUTE) >= int(_INFINITY)
                return Fault(number, element, found, self._scales_expected, non_finite)
            codes = self._codes.unpack(block.reshape(1, -1))[0]
            bad = (codes < -self._codes.largest) | ((codes != 0) & (bits == 0))
            if bad.any():
                at = int(bad.argmax())
                if element + at >= elements:
                    break  # behind the last number
                allowed = f"code -{self._codes.largest} to {self._codes.largest}" if bits else "code 0 beside scale 0"
                return Fault(number, element + at, f"code {int(codes[at])}", allowed)
        return self._padding_fault(blocks_RB, elements - first * self.block_elements, first)

    def _padding_fault(self, blocks_RB: Bytes, elements: int, first: int) -> Fault | None:
        if not len(blocks_RB):
            return None
        last = len(blocks_RB) - 1
        beyond = self._codes.unpack(blocks_RB[last:])[0, elements - last * self.block_elements :]
        if not (beyond != 0).any():
            return None
        code = int(beyond[int((beyond != 0).argmax())])
        return Fault(first + last, None, f"code {code}", "code 0")

    # --- encoding ------------------------------------------------------------------------------------------------------------

    def encode(self, values_N: Float32s) -> memoryview:
        whole = len(values_N) // self.block_elements
        blocks_RB = np.empty((-(-len(values_N) // self.block_elements), self.block_bytes), dtype=np.uint8)
        values_RK = values_N[: whole * self.block_elements].reshape(whole, self.block_elements)
        scratch = np.empty((min(len(blocks_RB), self._rows), self.block_elements), dtype=np.uint32)
        for rows in self._pieces(whole):
            self._encode(values_RK[rows], blocks_RB[rows], rows.start, scratch)
        if whole < len(blocks_RB):
            last_1K = np.zeros((1, self.block_elements), dtype=np.float32)
            rest = values_N[whole * self.block_elements :]
            np.copyto(last_1K[0, : len(rest)], rest)
            self._encode(last_1K, blocks_RB[whole:], whole, scratch)
        return blocks_RB.reshape(-1).data

    def _encode(self, values_RK: Float32s, blocks_RB: Bytes, first: int, scratch: Uint32s) -> None:
        # In one piece of memory that is used again: new memory costs several times what is computed in it.
        bits_RK = scratch[: len(values_RK)]
        scales_R1 = self._choose_scales(values_RK, bits_RK, first)
        np.copyto(_scales(blocks_RB), scales_R1)
        divisors_R1 = scales_R1.copy()
        np.copyto(
            divisors_R1, np.float32(1), where=scales_R1 == 0
        )  # such numbers are below 2^-119: their codes become 0
        scaled_RK = bits_RK.view(np.float32)
        np.divide(values_RK, divisors_R1, out=scaled_RK)
        np.add(scaled_RK, _TO_WHOLE, out=scaled_RK)
        codes_RK = scaled_RK.view(np.int32)
        codes_RK -= _TO_WHOLE_BITS
        if (scales_R1.view(np.uint32) == self._largest_scale).any():  # the largest float32s lie beyond the largest code
            largest = np.int32(self._codes.largest)
            np.copyto(codes_RK, largest, where=codes_RK > largest)
            np.copyto(codes_RK, -largest, where=codes_RK < -largest)
        self._codes.pack(codes_RK, blocks_RB)

    def _choose_scales(self, values_RK: Float32s, bits_RK: Uint32s, first: int) -> Float32s:
        """A scale for each row, shape (R, 1); `first` is the first row's number, `bits_RK` is written over."""
        np.copyto(bits_RK, values_RK.view(np.uint32))
        bits_RK &= _ABSOLUTE  # of a magnitude, the order of bits is the order of numbers
        starts_R = np.arange(0, bits_RK.size, self.block_elements, dtype=np.uint32)
        largest_R = bits_RK.reshape(-1).take(bits_RK.argmax(axis=1) + starts_R)
        unfit = largest_R >= _INFINITY
        if unfit.any():
            _refuse_non_finite(values_RK, int(unfit.argmax()), first)
        scales_R: Float32s = np.divide(largest_R.view(np.float32), np.float32(self._codes.largest))
        bits_R = scales_R.view(np.uint32)
        np.copyto(bits_R, np.uint32(0), where=bits_R < _SMALLEST_SCALE)
        np.copyto(bits_R, self._largest_scale, where=bits_R > self._largest_scale)
        return scales_R.reshape(-1, 1)


def _scales(blocks_RB: Bytes) -> Float32s:
    """The blocks' scales, shape (R, 1), a view."""
    scales_R1: Float32s = blocks_RB.view("<f4")[:, :1]
    return scales_R1


def _refuse_non_finite(values_RK: Float32s, row: int, first: int) -> None:
    at = int(np.isfinite(values_RK[row]).argmin())
    position = (first + row) * values_RK.shape[1] + at
    raise NonFiniteDelta(f"Number {position:,} is {float(values_RK[row, at])}.")
