"""The codes of `int8`: 124 in a block of 128 bytes, two's complement, a byte each."""

from __future__ import annotations

import numpy as np

from common.codecs.base import Bytes
from common.codecs.blockwise import SCALE_BYTES, Int8s, Int32s


class Int8Codes:
    """From -127 to 127."""

    block_bytes = 128
    block_elements = 124
    largest = 127

    def unpack(self, blocks_RB: Bytes) -> Int8s:
        return blocks_RB.view(np.int8)[:, SCALE_BYTES:]

    def pack(self, codes_RK: Int32s, blocks_RB: Bytes) -> None:
        np.copyto(blocks_RB.view(np.int8)[:, SCALE_BYTES:], codes_RK, casting="same_kind")

    def forbidden(self, blocks_RB: Bytes) -> bool:
        return bool((blocks_RB[:, SCALE_BYTES:] == np.uint8(0x80)).any())
