"""The codes of `int4`: 120 in a block of 64 bytes, two's complement, four bits each; of two, the first in the lower bits."""

from __future__ import annotations

import numpy as np

from common.codecs.base import Bytes
from common.codecs.blockwise import SCALE_BYTES, Int8s, Int32s

_LOWER, _UPPER = np.uint8(0x0F), np.uint8(0xF0)
_SIGN = np.int8(8)


class Int4Codes:
    """From -7 to 7."""

    block_bytes = 64
    block_elements = 120
    largest = 7

    def unpack(self, blocks_RB: Bytes) -> Int8s:
        # Scales are spread too, and left out last: rows without gaps are several times faster than rows with.
        pairs_RB = np.empty(blocks_RB.shape, dtype="<u2")
        np.copyto(pairs_RB, blocks_RB)
        pairs_RB |= pairs_RB << np.uint16(4)
        pairs_RB &= np.uint16(0x0F0F)
        codes = pairs_RB.view(np.int8)
        codes ^= _SIGN  # 0 to 15, so that 8 less of it is the code
        codes -= _SIGN
        return codes[:, 2 * SCALE_BYTES :]

    def pack(self, codes_RK: Int32s, blocks_RB: Bytes) -> None:
        narrow_RK = np.empty(codes_RK.shape, dtype=np.int8)
        np.copyto(narrow_RK, codes_RK, casting="same_kind")
        pairs = narrow_RK.view("<u2")
        packed = pairs & np.uint16(0x000F)
        pairs &= np.uint16(0x0F00)
        pairs >>= np.uint16(4)
        packed |= pairs
        np.copyto(blocks_RB[:, SCALE_BYTES:], packed, casting="same_kind")

    def forbidden(self, blocks_RB: Bytes) -> bool:
        codes = blocks_RB[:, SCALE_BYTES:]
        return bool(((codes & _LOWER) == np.uint8(0x08)).any() or ((codes & _UPPER) == np.uint8(0x80)).any())
