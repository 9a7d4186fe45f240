"""What is refused always, whatever the rule: other tensors than the manifest's, numbers that are none, too long a delta."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import ChunkSource
from common.codecs import CODECS, DeltaCodec, Fault
from common.errors import DeltaError, DeltaTooLong, NonFiniteDelta, WrongTensors
from common.reduce.scalar import TreeSum
from common.reduce.window import DeltaWindow

_LAYOUT = "Encode the delta as docs/protocol.md#codecs says."


@dataclass(frozen=True, slots=True)
class DeltaFacts:
    """What an inspected delta holds."""

    elements: int
    l2: float
    """Norm over all elements, same unit as the weights."""


def inspect_delta(
    reader: ChunkSource, header: bytes, *, max_l2: float, codec: DeltaCodec = CODECS["float32"]
) -> DeltaFacts:
    """Read a delta once, verified, and check everything that can be checked without the other deltas.

    Args:
        reader: the blob; one chunk of it is in memory at a time.
        header: which tensors, `common.tensors.trainable_header(manifest)`; the blob begins with `codec.header(manifest)`.
        max_l2: the plan's max_delta_l2; same unit as the weights. Infinity: no bound.
        codec: the plan's.

    Raises:
        WrongTensors: other header, a size that is not its tensors', or bytes that the codec's layout does not allow.
        NonFiniteDelta: NaN or infinity; the message names the tensor.
        DeltaTooLong: the norm is above `max_l2`.
        CorruptChunk: changed on disk.

    Source: sqrt of the tree sum of squares, docs/protocol.md#sums.
    """
    window = DeltaWindow(codec, header)
    window.check_size(reader)
    squares = TreeSum()
    elements = 0
    with np.errstate(all="ignore"):  # NaN and infinity are what we look for, not a warning
        for index in range(window.chunks):
            encoded = window.read(reader, index)
            if fault := window.fault(encoded, index):
                raise _not_allowed(fault, header)
            for values_N in window.pieces(encoded, index):
                squares.add_squares(values_N)
                elements += len(values_N)
    # A float32's square is finite in float64 and no square is negative: the sum is finite exactly if every value is.
    if not math.isfinite(squares.total()):
        raise _non_finite(window, reader, header)
    l2 = math.sqrt(squares.total())
    if l2 > max_l2:
        raise DeltaTooLong(f"The delta's L2 norm is {l2:.6g}, the plan's max_delta_l2 is {max_l2:.6g}.")
    return DeltaFacts(elements=elements, l2=l2)


def _not_allowed(fault: Fault, header: bytes) -> DeltaError:
    where = "behind the last number" if fault.element is None else f"in tensor {tensors.locate(header, fault.element)}"
    message = f"Block {fault.block:,} of the delta holds {fault.found}, {where}; expected {fault.expected}."
    return NonFiniteDelta(message) if fault.non_finite else WrongTensors(message, _LAYOUT)


def _non_finite(window: DeltaWindow, reader: ChunkSource, header: bytes) -> NonFiniteDelta:
    """Reads again to say where: this happens seldom, and a name saves somebody a day."""
    before = 0
    for index in range(window.chunks):
        for values_N in window.values(reader, index):
            finite = np.isfinite(values_N)
            if not finite.all():
                at = int(finite.argmin())
                place = tensors.locate(header, before + at)
                return NonFiniteDelta(f"The delta holds {float(values_N[at])} in tensor {place}.")
            before += len(values_N)
    return NonFiniteDelta("The delta holds NaN or infinity.")
