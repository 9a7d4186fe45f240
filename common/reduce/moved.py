"""How each delta lies to what its round added to the model (docs/protocol.md#contributions).

    for each leaf of 65,536 elements:    step = model − base;   step · step;   of each delta d:   d · d,   d · step
    l2 = √(d · d),   cosine = d · step ÷ (√(d · d) × √(step · step))

The step is what the model really did, after rule, server optimizer and downlink: so it can be had from two models that every
member may read, and an institution finds its own figures without anybody else's delta. Memory is a chunk of each model and a
few leaves, and for each delta what `parts` keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.codecs.base import DeltaCodec, Float32s
from common.reduce.loops import LEAF_ELEMENTS, Float64s, fold_leaf
from common.reduce.parts import PartReader, SliceDigests
from common.reduce.scalar import LeafTree
from common.reduce.window import DeltaWindow, read_head
from common.statements.kinds import Tensor


@dataclass(frozen=True, slots=True)
class Movement:
    """One delta. `l2`: its norm, same unit as the weights. `cosine`: to the step; None where either is zero."""

    l2: float
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A round. `step_l2`: the norm of what it added to the model; `deltas` in the order in which they were given."""

    step_l2: float
    deltas: tuple[Movement, ...]


@dataclass(frozen=True, slots=True)
class Models:
    """What a round started from, and what it ended with; `manifest` is the plan's."""

    manifest: Sequence[Tensor]
    base: ChunkSource
    model: ChunkSource


def compare(models: Models, codec: DeltaCodec, deltas: Sequence[ChunkSource]) -> Moved:
    """Norm and cosine of each delta; products are rounded once in float64 and added up by the fixed tree.

    Raises:
        WrongTensors: a model or delta is not the manifest's.
        CorruptChunk: a blob changed on disk.
        TruncatedChunk: a model ends too early.
    """
    header = tensors.trainable_header(models.manifest)
    window = DeltaWindow(codec, header)
    for delta in deltas:
        window.check_size(delta)
    reader = PartReader(codec, header, [SliceDigests(delta) for delta in deltas])
    step, sums = _Step(models), _Sums(len(deltas))
    for first in range(0, window.all_elements, LEAF_ELEMENTS):
        end = min(first + LEAF_ELEMENTS, window.all_elements)
        sums.add_step(step.next(end - first))
        for position in range(len(deltas)):
            sums.add_delta(position, reader.numbers(position, first, end))
    return sums.result()


class _Step:
    """What the round added, leaf after leaf."""

    def __init__(self, models: Models) -> None:
        header = tensors.model_header(models.manifest)
        self._streams = [_behind(header, source) for source in (models.base, models.model)]
        self._bytes = memoryview(bytearray(LEAF_ELEMENTS * tensors.ELEMENT_BYTES))
        self._before: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)
        self._after: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)

    def next(self, count: int) -> Float64s:
        """The next numbers, shape (count,), each difference rounded once; valid until the next call."""
        for stream, numbers in zip(self._streams, (self._before, self._after), strict=True):
            content = self._bytes[: count * tensors.ELEMENT_BYTES]
            stream.read_into(content)
            np.copyto(numbers[:count], np.frombuffer(content, dtype="<f4"))
        np.subtract(self._after[:count], self._before[:count], out=self._after[:count])
        return self._after[:count]


def _behind(header: bytes, source: ChunkSource) -> BlobStream:
    """A model after its header, where the trainable tensors begin."""
    stream, found = BlobStream(source), bytearray(len(header))
    stream.read_into(memoryview(found))
    if found != header:
        tensors.check_header(read_head(source), header)
    return stream


class _Sums:
    """All sums of a round, a tree each."""

    def __init__(self, deltas: int) -> None:
        self._step_L: Float64s = np.empty(0, dtype=np.float64)
        self._squared_step = LeafTree()
        self._squares = [LeafTree() for _ in range(deltas)]
        self._products = [LeafTree() for _ in range(deltas)]
        self._delta: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)
        self._leaf: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)

    def add_step(self, step_L: Float64s) -> None:
        """The step's next leaf; deltas' leaves follow."""
        self._step_L = step_L
        self._squared_step.append(self._sum(step_L, step_L))

    def add_delta(self, position: int, delta_L: Float32s) -> None:
        """The same elements of a delta."""
        values_L = self._delta[: len(delta_L)]
        np.copyto(values_L, delta_L)  # exact
        self._squares[position].append(self._sum(values_L, values_L))
        self._products[position].append(self._sum(values_L, self._step_L))

    def _sum(self, one_L: Float64s, other_L: Float64s) -> float:
        np.multiply(one_L, other_L, out=self._leaf[: len(one_L)])
        return fold_leaf(self._leaf, len(one_L))

    def result(self) -> Moved:
        """Norms and cosines; rounding may not carry a cosine beyond ±1."""
        step_l2 = math.sqrt(self._squared_step.total())
        found = []
        for squares, products in zip(self._squares, self._products, strict=True):
            l2 = math.sqrt(squares.total())
            lengths = l2 * step_l2
            cosine = max(-1.0, min(1.0, products.total() / lengths)) if lengths > 0.0 else None
            found.append(Movement(l2, cosine))
        return Moved(step_l2, tuple(found))
