"""The codec `topk`: of each block the numbers of largest magnitude, as they are; all others are +0.0 and wait in the residual.

    block of 1,024 bytes = values, K × float32 | lower, K bytes | groups, bits up to the block's end

A block covers E numbers in groups of 256. `groups` counts the kept numbers of each group: so many ones, then a zero. So the
gaps between kept numbers are coded as far as they cross groups; `lower` says where in its group each one is. At 1 % that is 8
bits and 1.4 for a position, where no coding can do with fewer than 8.1 on average; and it never takes more, so all blocks have
the same size, and which bytes hold which numbers stays arithmetic.

K and E follow from the plan's fraction f: K is the largest for which everything has room, E = ⌊K ÷ f⌋.

Source: positions as in Elias, JACM 1974, and Fano, MIT 1971; what is kept as in Lin et al., arXiv:1712.01887, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from common import tensors
from common.codecs.base import PIECE_ELEMENTS, Bytes, Fault, Float32s, Uint32s
from common.codecs.packed import packed_header
from common.errors import NonFiniteDelta
from common.statements.kinds import Tensor

Places = NDArray[np.int64]
Booleans = NDArray[np.bool_]

NAME = "topk"
BLOCK_BYTES = 1024
GROUP_ELEMENTS = 256
VALUE_BYTES = 4
_ROWS = 256
"""At most so many blocks at once: their bits are spread to bytes."""
_ABSOLUTE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_MINUS_ZERO = np.uint32(0x80000000)
_SMALLEST = np.uint32(1)
"""The bits of 2^-149: of a magnitude, the order of bits is the order of numbers."""


def layout(fraction: Decimal) -> tuple[int, int]:
    """K and E: how many numbers of a block are kept at most, and how many it covers.

    Args:
        fraction: from 0.001 to 0.5, exact.
    """
    numerator, denominator = fraction.as_integer_ratio()
    kept = 0
    while _needed_bytes(kept + 1, (kept + 1) * denominator // numerator) <= BLOCK_BYTES:
        kept += 1
    return kept, kept * denominator // numerator


def _needed_bytes(kept: int, elements: int) -> int:
    bits = kept + -(-elements // GROUP_ELEMENTS) - 1  # the last kept number's one needs no zero behind it
    return (VALUE_BYTES + 1) * kept + -(-bits // 8)


@dataclass(frozen=True, slots=True)
class _Entries:
    """Kept numbers, block after block and in each by rank; each shape (M,)."""

    row: Places
    """Which block."""
    rank: Places
    """How many kept numbers of its block come before it."""
    place: Places
    """Which number of its block it is."""


class TopkCodec:
    """One of a fraction. It holds nothing that changes."""

    block_bytes = BLOCK_BYTES
    is_view = False

    def __init__(self, fraction: Decimal) -> None:
        """
        Args:
            fraction: the share of numbers that is kept, from 0.001 to 0.5.
        """
        self._kept, self.block_elements = layout(fraction)
        self._groups_at = (VALUE_BYTES + 1) * self._kept
        self._bits = 8 * (BLOCK_BYTES - self._groups_at)
        self._rows = min(_ROWS, max(1, PIECE_ELEMENTS // self.block_elements))

    def header_over(self, tensors_header: bytes) -> bytes:
        return self._header(tensors.data_bytes(tensors_header) // tensors.ELEMENT_BYTES)

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        return self._header(tensors.trainable_elements(manifest))

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        elements = tensors.trainable_elements(manifest)
        return len(self._header(elements)) + self._encoded_bytes(elements)

    def elements(self, encoded_bytes: int) -> int:
        return encoded_bytes // BLOCK_BYTES * self.block_elements

    def _header(self, elements: int) -> bytes:
        return packed_header(NAME, self._encoded_bytes(elements), alignment=BLOCK_BYTES)

    def _encoded_bytes(self, elements: int) -> int:
        return -(-elements // self.block_elements) * BLOCK_BYTES

    def _pieces(self, blocks: int) -> Iterator[slice]:
        for first in range(0, blocks, self._rows):
            yield slice(first, min(blocks, first + self._rows))

    # --- decoding ------------------------------------------------------------------------------------------------------------

    def decode(self, encoded: memoryview, into: Float32s) -> Float32s:
        """As in `DeltaCodec`. Of bytes that `fault` does not allow, what has no place in its block is left out."""
        blocks_RB = self._blocks(encoded)
        out_N = into[: self.elements(len(encoded))]
        out_N.fill(0.0)
        for rows in self._pieces(len(blocks_RB)):
            part_RB = blocks_RB[rows]
            found = self._entries(part_RB)
            slots_M = found.row * (BLOCK_BYTES // VALUE_BYTES) + found.rank
            index_M = found.row * self.block_elements + found.place
            fits_M = self._fits(found)
            if not fits_M.all():
                slots_M, index_M = slots_M[fits_M], index_M[fits_M]
            out_N[rows.start * self.block_elements :][index_M] = part_RB.view("<f4").reshape(-1).take(slots_M)
        return out_N

    def _blocks(self, encoded: memoryview) -> Bytes:
        return np.frombuffer(encoded, dtype="u1").reshape(-1, BLOCK_BYTES)

    def _entries(self, blocks_RB: Bytes) -> _Entries:
        """What the bits of `groups` say, whether or not there is a value for it and a number at that place."""
        bits = np.unpackbits(blocks_RB[:, self._groups_at :], axis=1, bitorder="little")
        ones_M = np.flatnonzero(bits)
        row_M = ones_M // self._bits
        rank_M = _ranks(ones_M, len(blocks_RB), self._bits)
        group_M = ones_M - row_M * self._bits - rank_M  # as many zeros come before it
        # A rank without a value has no lower byte either: whatever it reads there, it is not allowed.
        lower_M = blocks_RB.reshape(-1).take(row_M * BLOCK_BYTES + self._kept * VALUE_BYTES + rank_M, mode="clip")
        return _Entries(row_M, rank_M, group_M * GROUP_ELEMENTS + lower_M)

    def _fits(self, found: _Entries) -> Booleans:
        fits_M: Booleans = (found.rank < self._kept) & (found.place < self.block_elements)
        return fits_M

    # --- what is not allowed -------------------------------------------------------------------------------------------------

    def fault(self, encoded: memoryview, elements: int) -> Fault | None:
        blocks_RB = self._blocks(encoded)
        for rows in self._pieces(len(blocks_RB)):
            left = elements - rows.start * self.block_elements
            if not self._is_clean(blocks_RB[rows], left):
                return self._first_fault(blocks_RB[rows], rows.start, elements)
        return None

    def _is_clean(self, blocks_RB: Bytes, elements: int) -> bool:
        found = self._entries(blocks_RB)
        index_M = found.row * self.block_elements + found.place
        if not self._fits(found).all() or not (index_M[1:] > index_M[:-1]).all():
            return False
        if len(index_M) and index_M[-1] >= elements:
            return False
        used_RK = np.zeros((len(blocks_RB), self._kept), dtype=np.bool_)
        used_RK[found.row, found.rank] = True
        bits_RK = self._value_bits(blocks_RB)
        lower_RK = blocks_RB[:, self._kept * VALUE_BYTES : self._groups_at]
        if (bits_RK == _MINUS_ZERO).any() or ((lower_RK != 0) & ~used_RK).any():
            return False
        return bool(((bits_RK != 0) == used_RK).all())

    def _value_bits(self, blocks_RB: Bytes) -> Uint32s:
        bits_RK: Uint32s = blocks_RB.view("<u4")[:, : self._kept]
        return bits_RK

    def _first_fault(self, blocks_RB: Bytes, first: int, elements: int) -> Fault | None:
        """Slow and seldom: which block of those from number `first` on, and what of it."""
        for row in range(len(blocks_RB)):
            number = first + row
            if fault := self._block_fault(blocks_RB[row : row + 1], number, elements - number * self.block_elements):
                return fault
        return None

    def _block_fault(self, block_1B: Bytes, number: int, elements: int) -> Fault | None:
        start = number * self.block_elements
        bits, values = self._value_bits(block_1B)[0], block_1B.view("<f4")[0]
        found, before = self._entries(block_1B), -1
        for rank, at in zip(found.rank.tolist(), found.place.tolist(), strict=True):
            if rank >= self._kept:
                return Fault(number, start, f"more than {self._kept} positions", f"at most {self._kept}")
            if at >= self.block_elements:
                return Fault(number, start, f"position {at:,}", f"positions below {self.block_elements:,}")
            if at <= before:
                return Fault(number, start + at, f"position {at:,} after {before:,}", "ascending positions")
            if at >= elements:
                return Fault(number, None, f"position {at:,}", f"positions below {elements:,}")
            if not bits[rank] & _ABSOLUTE:
                return Fault(
                    number, start + at, f"value {float(values[rank])}", "another value than 0 where one is kept"
                )
            before = at
        lower = block_1B[0, self._kept * VALUE_BYTES : self._groups_at]
        for rank in range(len(found.rank), self._kept):
            if bits[rank] or lower[rank]:
                expected = f"zeros behind the {len(found.rank)} that its positions name"
                return Fault(
                    number, start, f"value {rank} with bits {int(bits[rank]):#010x}, {int(lower[rank])}", expected
                )
        return None

    # --- encoding ------------------------------------------------------------------------------------------------------------

    def encode(self, values_N: Float32s) -> memoryview:
        whole = len(values_N) // self.block_elements
        blocks_RB = np.zeros((-(-len(values_N) // self.block_elements), BLOCK_BYTES), dtype=np.uint8)
        values_RE = values_N[: whole * self.block_elements].reshape(whole, self.block_elements)
        for rows in self._pieces(whole):
            self._encode(values_RE[rows], blocks_RB[rows], rows.start)
        if whole < len(blocks_RB):
            last_1E = np.zeros((1, self.block_elements), dtype=np.float32)  # a zero is never kept
            rest = values_N[whole * self.block_elements :]
            np.copyto(last_1E[0, : len(rest)], rest)
            self._encode(last_1E, blocks_RB[whole:], whole)
        return blocks_RB.reshape(-1).data

    def _encode(self, values_RE: Float32s, blocks_RB: Bytes, first: int) -> None:
        chosen_M, rank_M = self._choose(values_RE, first)
        row_M = chosen_M // self.block_elements
        at_M = chosen_M - row_M * self.block_elements
        slots_M = row_M * (BLOCK_BYTES // VALUE_BYTES) + rank_M
        blocks_RB.view("<f4").reshape(-1)[slots_M] = values_RE.reshape(-1).take(chosen_M)
        blocks_RB.reshape(-1)[row_M * BLOCK_BYTES + self._kept * VALUE_BYTES + rank_M] = at_M % GROUP_ELEMENTS
        bits = np.zeros((len(blocks_RB), self._bits), dtype=np.bool_)
        bits.reshape(-1)[row_M * self._bits + at_M // GROUP_ELEMENTS + rank_M] = True
        np.copyto(blocks_RB[:, self._groups_at :], np.packbits(bits, axis=1, bitorder="little"))

    def _choose(self, values_RE: Float32s, first: int) -> tuple[Places, Places]:
        """Which numbers are kept, row after row as if they were one, and their ranks; `first` is the first row's number."""
        bits_RE = values_RE.view(np.uint32) & _ABSOLUTE
        unfit = bits_RE >= _INFINITY
        if unfit.any():
            at = int(unfit.reshape(-1).argmax())
            position = first * self.block_elements + at
            raise NonFiniteDelta(f"Number {position:,} is {float(values_RE.reshape(-1)[at])}.")
        place = self.block_elements - self._kept
        least_R1 = np.partition(bits_RE, place, axis=1)[:, place : place + 1].copy()
        np.copyto(least_R1, _SMALLEST, where=least_R1 == 0)
        chosen_M = np.flatnonzero(bits_RE >= least_R1)
        rank_M = _ranks(chosen_M, len(bits_RE), self.block_elements)
        if not (rank_M >= self._kept).any():
            return chosen_M, rank_M
        chosen_M = chosen_M[self._first_of_equals(chosen_M, rank_M, bits_RE, least_R1)]
        return chosen_M, _ranks(chosen_M, len(bits_RE), self.block_elements)

    def _first_of_equals(self, chosen_M: Places, rank_M: Places, bits_RE: Uint32s, least_R1: Uint32s) -> Booleans:
        """Which stay where rows have more than are kept: of the least magnitude that is kept, the earlier ones."""
        stays_M = np.full(len(chosen_M), True, dtype=np.bool_)
        for at in np.flatnonzero(
            rank_M == self._kept
        ).tolist():  # one in each such row: its rank says where the row begins
            row = int(chosen_M[at]) // self.block_elements
            begin, end = at - self._kept, int(np.searchsorted(chosen_M, (row + 1) * self.block_elements))
            ties = begin + np.flatnonzero(bits_RE.reshape(-1).take(chosen_M[begin:end]) == least_R1[row, 0])
            stays_M[ties[self._kept - (end - begin) :]] = False
        return stays_M


def _ranks(ascending_M: Places, rows: int, row_length: int) -> Places:
    """How many of the same row come before each, of ascending places in `rows` rows of that length put one after the other."""
    starts_R = np.arange(0, rows * row_length, row_length, dtype=np.uint32)
    before_R = np.searchsorted(ascending_M, starts_R)
    ranks_M: Places = np.arange(0, len(ascending_M), dtype=np.uint32) - before_R.take(ascending_M // row_length)
    return ranks_M
