"""A delta inspected while it arrives, chunk by chunk in any order, so that nobody reads it again when its statement comes.

    chunk verified ─▶ `came`: its layout checked, the whole leaves in it of the sum of squares kept
    statement      ─▶ `facts`: the leaves that lie in several chunks, and the sum over all

The facts are those of `inspect_delta`, in every bit. Where something is wrong there are none, and `inspect_delta` says what.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from common.blobs.reader import BlobReader, ChunkSource
from common.codecs.base import DeltaCodec
from common.errors import DeltaError
from common.reduce.inspect import DeltaFacts
from common.reduce.loops import LEAF_ELEMENTS
from common.reduce.scalar import LeafOfSquares, LeafTree
from common.reduce.window import DeltaWindow


class InspectionLane:
    """What inspecting deltas of the same tensors and codec needs of memory: one chunk and one leaf, however many arrive."""

    def __init__(self, codec: DeltaCodec, tensors_header: bytes) -> None:
        """
        Args:
            codec: the plan's.
            tensors_header: `common.tensors.trainable_header(manifest)`.
        """
        self.window = DeltaWindow(codec, tensors_header)
        self.leaf = LeafOfSquares()
        self.lock = threading.Lock()


class ArrivingDelta:
    """One delta; any thread."""

    def __init__(self, lane: InspectionLane) -> None:
        self._lane = lane
        leaves = -(-lane.window.all_elements // LEAF_ELEMENTS)
        self._sums = np.zeros(leaves, dtype=np.float64)
        self._known = bytearray(leaves)
        self._came = bytearray(lane.window.chunks)
        self._sound = True

    def came(self, chunk: int, source: ChunkSource) -> None:
        """Inspect a chunk that was verified a moment ago; `source` reads it."""
        lane = self._lane
        with lane.lock, np.errstate(all="ignore"):  # what overflows shows in the sum
            try:
                encoded = lane.window.read(source, chunk)
            except DeltaError:
                self._sound = False
                return
            if lane.window.fault(encoded, chunk) is None:
                self._add_leaves(encoded, chunk)
                self._came[chunk] = 1
            else:
                self._sound = False

    def _add_leaves(self, encoded: memoryview, chunk: int) -> None:
        """Keep the sums of leaves that begin and end in this chunk."""
        window, leaf = self._lane.window, self._lane.leaf
        at = window.elements_before(chunk)
        leaf.clear()
        for values_N in window.pieces(encoded, chunk):
            rest_N = values_N
            while len(rest_N):
                inside = at % LEAF_ELEMENTS
                of_earlier = inside > 0 and not leaf.filled  # of a leaf that began in the chunk before
                taken = min(len(rest_N), LEAF_ELEMENTS - inside) if of_earlier else leaf.take(rest_N)
                at, rest_N = at + taken, rest_N[taken:]
                if leaf.full:
                    self._keep((at - 1) // LEAF_ELEMENTS, leaf.fold())
        if leaf.filled and at == window.all_elements:
            self._keep((at - 1) // LEAF_ELEMENTS, leaf.fold())

    def _keep(self, index: int, leaf_sum: float) -> None:
        self._sums[index], self._known[index] = leaf_sum, True

    def facts(self, reader: BlobReader) -> DeltaFacts | None:
        """What `inspect_delta` would find, or None where it must be asked: not all was seen to arrive, or not all is right.

        Raises:
            CorruptChunk: the file was cut short since.
        """
        if not self._sound or 0 in self._came:
            return None
        with self._lane.lock, np.errstate(all="ignore"):
            for index in range(len(self._known)):
                if not self._known[index]:
                    self._keep(index, self._leaf_sum(reader, index))
        tree = LeafTree()
        for leaf_sum in self._sums:
            tree.append(float(leaf_sum))
        total = tree.total()
        return DeltaFacts(self._lane.window.all_elements, math.sqrt(total)) if math.isfinite(total) else None

    def _leaf_sum(self, reader: BlobReader, index: int) -> float:
        """Of a leaf that lies in more than one chunk."""
        leaf, first = self._lane.leaf, index * LEAF_ELEMENTS
        leaf.clear()
        leaf.take(self._lane.window.numbers(reader.read_unverified, first, first + LEAF_ELEMENTS))
        return leaf.fold()
