"""Encoded deltas, and what their bytes say by a slow reading of the documented layout, without numpy and the codecs."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.codecs import CODECS
from common.statements.kinds import Tensor

SCALED = {"int8": (127, 124), "int4": (7, 120)}
"""Codecs with scales: their largest code, and numbers a block."""

TOPK = (197, 19_700)
"""At 1 %: how many numbers of a block are kept at most, and how many it covers."""


def encoded_blob(name: str, manifest: Sequence[Tensor], values_N: NDArray[np.float32]) -> bytes:
    """A whole delta blob of these numbers."""
    return CODECS[name].header(manifest) + bytes(CODECS[name].encode(values_N))


def decode_slowly(name: str, encoded: bytes, *, scaled: bool = True) -> list[float]:
    """The numbers of encoded blocks, what fills the last one up included; with `scaled` False their codes."""
    if name == "float32":
        return [value for (value,) in struct.iter_unpack("<f", encoded)]
    if name == "bfloat16":
        return [struct.unpack("<f", b"\0\0" + encoded[at : at + 2])[0] for at in range(0, len(encoded), 2)]
    numbers: list[float] = []
    if name == "topk":
        for at in range(0, len(encoded), 1024):
            block = [0.0] * TOPK[1]
            for position, value in topk_entries(encoded[at : at + 1024]):
                block[position] = value
            numbers += block
        return numbers
    for at in range(0, len(encoded), 128 if name == "int8" else 64):
        (scale,) = struct.unpack_from("<f", encoded, at)
        if name == "int8":
            codes = list(struct.unpack_from("124b", encoded, at + 4))
        else:
            halves = [half for byte in encoded[at + 4 : at + 64] for half in (byte & 15, byte >> 4)]
            codes = [half - 16 if half > 7 else half for half in halves]
        numbers += [_rounded(scale * code) for code in codes] if scaled else codes
    return numbers


def topk_entries(block: bytes) -> Iterator[tuple[int, float]]:
    """The positions that a block of `topk` at 1 % names, and their values, whether or not the layout allows them."""
    kept, _ = TOPK
    group = rank = 0
    for byte in block[5 * kept :]:
        for bit in range(8):
            if not byte >> bit & 1:
                group += 1
            elif rank < kept:
                yield 256 * group + block[4 * kept + rank], struct.unpack_from("<f", block, 4 * rank)[0]
                rank += 1
            else:
                yield -1, 0.0
                rank += 1


def _rounded(value: float) -> float:
    """To float32: the product of a float32 and a small whole number is exact in float64, so this is its only rounding."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
