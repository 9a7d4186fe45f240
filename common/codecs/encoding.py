"""encode_delta: a trained delta as the blob that travels, and what the blob lacks of it, in constant memory.

    x       = delta + residual          float32, one rounding
    blob    = encode(x)
    new     = x − decode(blob)          float32; exact, but for numbers beyond a codec's largest

Error feedback: what one round's blob lacks is added to the next round's delta, so nothing is lost for good.

Source: Seide et al., Interspeech 2014; Karimireddy et al., arXiv:1901.09847.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import numpy as np

from common import tensors
from common.codecs import codec
from common.codecs.base import DeltaCodec, Float32s
from common.errors import NonFiniteDelta, WrongTensors
from common.plan import codecs as plan
from common.statements.kinds import Tensor

BUFFER_ELEMENTS = 256 * 1024
"""At most so many numbers are read and written at once: 1 MiB each of delta, residual and decoded numbers."""

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class EncodeJob:
    """What a delta's blob is a function of, and where blob and new residual go."""

    codec: plan.Codec
    manifest: Sequence[Tensor]
    delta: BinaryIO
    """Positioned at the numbers: float32, little-endian, as many as the manifest's trainable tensors have, and no more."""
    residual: BinaryIO | None
    """As many, positioned alike; None: zeros."""
    write: Write
    """Gets the blob, header first; each view is valid during the call only."""
    keep: Write | None
    """Gets the new residual, float32, little-endian, without a header."""


def encode_delta(job: EncodeJob) -> None:
    """
    Raises:
        WrongTensors: the delta or the residual has fewer or more numbers than the manifest's trainable tensors.
        NonFiniteDelta: a number, or its sum with the residual, is NaN or infinite; the message names the tensor.
    """
    chosen = codec(job.codec)
    elements = tensors.trainable_elements(job.manifest)
    at_once = min(max(1, BUFFER_ELEMENTS // chosen.block_elements) * chosen.block_elements, elements)
    delta, residual = _Numbers(job.delta, "delta", at_once, elements), None
    if job.residual is not None:
        residual = _Numbers(job.residual, "residual", at_once, elements)
    decoded = np.empty(at_once + chosen.block_elements, dtype=np.float32)
    job.write(memoryview(chosen.header(job.manifest)))
    for start in range(0, elements, max(1, at_once)):
        values_N = delta.take(min(at_once, elements - start))
        if residual is not None:
            with np.errstate(all="ignore"):  # infinity is found by its place
                np.add(values_N, residual.take(len(values_N)), out=values_N)
        encoded = _encode(chosen, values_N, job.manifest, start)
        job.write(encoded)
        if job.keep is not None:
            np.subtract(values_N, chosen.decode(encoded, decoded)[: len(values_N)], out=values_N)
            job.keep(values_N.view(np.uint8).data)
    delta.expect_end()
    if residual is not None:
        residual.expect_end()


class _Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Numbers:
    """A file's numbers, piece by piece into the same memory."""

    def __init__(self, source: BinaryIO, what: str, at_once: int, elements: int) -> None:
        self._source = cast(_Readable, source)  # every binary file can, though not every type of one says so
        self._what = what
        self._elements = elements
        self._content = memoryview(bytearray(max(1, at_once) * tensors.ELEMENT_BYTES))
        self._taken = 0

    def take(self, count: int) -> Float32s:
        """The next `count` numbers, writable, valid until the next call.

        Raises:
            WrongTensors: there are fewer.
        """
        content = self._content[: count * tensors.ELEMENT_BYTES]
        filled = 0
        while filled < len(content):
            got = self._source.readinto(content[filled:])
            if not got:
                found = self._taken + filled // tensors.ELEMENT_BYTES
                raise WrongTensors(f"The {self._what} ends after {found:,} numbers, expected {self._elements:,}.")
            filled += got
        self._taken += count
        return np.frombuffer(content, dtype="<f4")

    def expect_end(self) -> None:
        """
        Raises:
            WrongTensors: there are more.
        """
        if self._source.readinto(self._content[:1]):
            raise WrongTensors(f"The {self._what} goes on after the {self._elements:,} numbers that its tensors have.")


def _encode(chosen: DeltaCodec, values_N: Float32s, manifest: Sequence[Tensor], start: int) -> memoryview:
    try:
        return chosen.encode(values_N)
    except NonFiniteDelta as err:
        at = int(np.isfinite(values_N).argmin())
        place = tensors.locate(tensors.trainable_header(manifest), start + at)
        raise NonFiniteDelta(f"The delta holds {float(values_N[at])} in tensor {place}; it cannot be encoded.") from err
