"""What every codec offers. Decoding is part of the normative arithmetic: same bytes, same float32 bits, on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.statements.kinds import Tensor

Float32s = NDArray[np.float32]


class DeltaCodec(Protocol):
    """Bytes of a delta blob to float32 and back. A blob is `header(manifest)` and then the encoded numbers."""

    def header(self, manifest: Sequence[Tensor]) -> bytes:
        """The first bytes of every delta, fixed by the manifest; a multiple of 64."""
        ...

    def encoded_size(self, manifest: Sequence[Tensor]) -> int:
        """Bytes of a delta blob, header included."""
        ...

    def elements(self, encoded_bytes: int) -> int:
        """How many numbers a piece of so many bytes decodes to."""
        ...

    def decode(self, encoded: memoryview) -> Float32s:
        """The numbers in a piece of the encoded part that starts and ends where a chunk or the header does.

        Returns:
            float32, shape (N,); may be a view of `encoded`, so valid as long as that is.
        """
        ...
