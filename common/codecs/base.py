"""What every codec offers. Its arithmetic is normative: same bytes, same float32 bits, on any machine, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.statements.kinds import Tensor

Float32s = NDArray[np.float32]
Uint32s = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

PIECE_ELEMENTS = 65_536
"""Codecs work through so many numbers at a time, which stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing in encoded bytes that their layout does not allow."""

    block: int
    """Counted from the beginning of these bytes."""
    element: int | None
    """The number that it would have been, or the first of its block; None behind the last number."""
    found: str
    expected: str
    non_finite: bool = False
    """Whether it would have made NaN or infinity."""


class DeltaCodec(Protocol):
    """Float32 to a delta blob's bytes and back. A blob is `header(manifest)` and then whole blocks of encoded numbers."""

    @property
    def block_bytes(self) -> int:
        """Bytes of a block; blobs may be cut at any multiple behind the header. Divides the size of a chunk."""
        ...

    @property
    def block_elements(self) -> int:
        """Numbers of a block."""
        ...

    @property
    def is_view(self) -> bool:
        """Whether encoded numbers are float32 as they are, so that `decode` computes nothing and needs no room."""
        ...

    def header_over(self, tensors_header: bytes) -> bytes:
        """The first bytes of every delta of these tensors, a multiple of `block_bytes`.

        Args:
            tensors_header: as `common.tensors.trainable_header` makes it.
        """
        ...

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        """The same, by a manifest."""
        ...

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        """Bytes of a delta blob, header included."""
        ...

    def elements(self, encoded_bytes: int) -> int:
        """How many numbers so many encoded bytes hold, what fills the last block up included."""
        ...

    def fault(self, encoded: memoryview, elements: int) -> Fault | None:
        """What is wrong with a piece of the encoded part, whole blocks; None if nothing is.

        Not found here: NaN and infinity where the layout can spell them as numbers; those of decoded numbers show.

        Args:
            elements: how many numbers it holds; only what fills its last block up may follow.
        """
        ...

    def decode(self, encoded: memoryview, into: Float32s) -> Float32s:
        """The numbers in a piece of the encoded part, whole blocks, what fills the last one up included.

        Defined for all bytes; whether they are allowed is what `fault` says.

        Args:
            into: at least `elements(len(encoded))` long, and contiguous.

        Returns:
            float32, shape (N,); a part of `into`, or a view of `encoded`, so valid as long as both are.
        """
        ...

    def encode(self, values_N: Float32s) -> memoryview:
        """Numbers as whole blocks; the last one is filled up, so only the last piece may not be a multiple of a block.

        Raises:
            NonFiniteDelta: NaN or infinity; the message says at which position.
        """
        ...
