"""What is refused always, whatever the rule: other tensors than the manifest's, numbers that are none, too long a delta."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common import tensors
from common.blobs.reader import ChunkSource
from common.codecs import CODECS, DeltaCodec, Fault
from common.errors import DeltaError, DeltaTooLong, NonFiniteDelta, WrongTensors
from common.reduce.scalar import LeafOfSquares, TreeSum
from common.reduce.window import DeltaWindow

_LAYOUT = "Encode the delta as docs/protocol.md#codecs says."


@dataclass(frozen=True, slots=True)
class DeltaFacts:
    """What an inspected delta holds."""

    elements: int
    l2: float
    """Norm over all elements, same unit as the weights."""


def inspect_delta(
    reader: ChunkSource,
    header: bytes,
    *,
    max_l2: float,
    codec: DeltaCodec = CODECS["float32"],
    name: Literal["delta", "control"] = "delta",
) -> DeltaFacts:
    """Read a delta once, verified, and check everything that can be checked without the other deltas.

    Args:
        reader: the blob; one chunk of it is in memory at a time.
        header: which tensors, `common.tensors.trainable_header(manifest)`; the blob begins with `codec.header(manifest)`.
        max_l2: the plan's max_delta_l2; same unit as the weights. Infinity: no bound. Of a control, its max_control_l2.
        codec: the plan's; of a control, float32.
        name: what a contribution calls it; a control lies as a delta does.

    Raises:
        WrongTensors: other header, a size that is not its tensors', or bytes that the codec's layout does not allow.
        NonFiniteDelta: NaN or infinity; the message names the tensor.
        DeltaTooLong: the norm is above `max_l2`.
        CorruptChunk: changed on disk.

    Source: sqrt of the tree sum of squares, docs/protocol.md#sums.
    """
    window = DeltaWindow(codec, header)
    window.check_size(reader)
    squares = TreeSum(LeafOfSquares())
    elements = 0
    with np.errstate(all="ignore"):  # NaN and infinity are what we look for, not a warning
        for index in range(window.chunks):
            encoded = window.read(reader, index)
            if fault := window.fault(encoded, index):
                raise _not_allowed(fault, header, name)
            for values_N in window.pieces(encoded, index):
                squares.add(values_N)
                elements += len(values_N)
    # A float32's square is finite in float64 and no square is negative: the sum is finite exactly if every value is.
    if not math.isfinite(squares.total()):
        raise _non_finite(window, reader, header, name)
    l2 = math.sqrt(squares.total())
    if l2 > max_l2:
        fix = None if name == "delta" else "Look for text whose gradients are far longer; the bound is the plan's."
        raise DeltaTooLong(f"The {name}'s L2 norm is {l2:.6g}, the plan's max_{name}_l2 is {max_l2:.6g}.", fix)
    return DeltaFacts(elements=elements, l2=l2)


def _not_allowed(fault: Fault, header: bytes, name: str) -> DeltaError:
    where = "behind the last number" if fault.element is None else f"in tensor {tensors.locate(header, fault.element)}"
    message = f"Block {fault.block:,} of the {name} holds {fault.found}, {where}; expected {fault.expected}."
    return NonFiniteDelta(message) if fault.non_finite else WrongTensors(message, _LAYOUT)


def _non_finite(window: DeltaWindow, reader: ChunkSource, header: bytes, name: str) -> NonFiniteDelta:
    """Reads again to say where: this happens seldom, and a name saves somebody a day."""
    before = 0
    for index in range(window.chunks):
        for values_N in window.values(reader, index):
            finite = np.isfinite(values_N)
            if not finite.all():
                at = int(finite.argmin())
                place = tensors.locate(header, before + at)
                return NonFiniteDelta(f"The {name} holds {float(values_N[at])} in tensor {place}.")
            before += len(values_N)
    return NonFiniteDelta(f"The {name} holds NaN or infinity.")
