"""The first look: what a rule must know of whole deltas, by the fixed sums (docs/protocol.md#sums)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, product

import numpy as np

from common.codecs.base import DeltaCodec, Float32s
from common.reduce.loops import LEAF_ELEMENTS, Float64s, fold_leaf
from common.reduce.parts import PartReader, SliceDigests
from common.reduce.pipeline import in_lanes
from common.reduce.rule import Look, Sealed
from common.reduce.scalar import LeafOfSquares, LeafTree, TreeSum
from common.reduce.window import DeltaWindow

COMPARED_AT_ONCE = 64
"""So many deltas' leaves are in memory of a lane at once, 16 MiB; of more, half as many with half as many others."""


class FirstLook:
    """Reads all deltas once, or more often where a cohort is large."""

    def __init__(self, codec: DeltaCodec, tensors_header: bytes, lanes: int) -> None:
        self._codec, self._header, self._lanes = codec, tensors_header, lanes

    def sealed(self, look: Look, num_tokens: tuple[int, ...], deltas: Sequence[SliceDigests]) -> Sealed:
        """What a rule that looks so is given.

        Raises:
            WrongTensors: a header is not the manifest's.
            CorruptChunk: a blob changed on disk.
        """
        match look:
            case "nothing":
                return Sealed(num_tokens)
            case "norms":
                return Sealed(num_tokens, norms=tuple(self.norms(deltas)))
            case "distances":
                return Sealed(num_tokens, squared_distances=self.squared_distances(deltas))

    def norms(self, deltas: Sequence[SliceDigests]) -> list[float]:
        """The L2 norm of each delta, as `inspect_delta` has it."""
        windows = [DeltaWindow(self._codec, self._header) for _ in range(min(self._lanes, len(deltas)))]

        def norm(window: DeltaWindow, position: int) -> float:
            squares = TreeSum(LeafOfSquares())
            for chunk in range(window.chunks):
                for values_N in window.values(deltas[position].source, chunk):
                    squares.add(values_N)
            return math.sqrt(squares.total())

        return list(in_lanes([_bound(norm, window) for window in windows], len(deltas)))

    def squared_distances(self, deltas: Sequence[SliceDigests]) -> Float64s:
        """‖d_i − d_j‖² of all pairs, each difference and each square taken in float64 and rounded once; shape (I, I)."""
        squared_II = np.zeros((len(deltas), len(deltas)), dtype=np.float64)
        elements = DeltaWindow(self._codec, self._header).all_elements
        for chosen, pairs in _tiles(len(deltas)):
            lanes = [
                _PairLane(PartReader(self._codec, self._header, deltas), chosen, pairs, elements)
                for _ in range(self._lanes)
            ]
            trees = [LeafTree() for _ in pairs]
            for leaf_sums in in_lanes([lane.leaf_sums for lane in lanes], -(-elements // LEAF_ELEMENTS)):
                for tree, leaf_sum in zip(trees, leaf_sums, strict=True):
                    tree.append(leaf_sum)
            for (one, other), tree in zip(pairs, trees, strict=True):
                squared_II[one, other] = squared_II[other, one] = tree.total()
        return squared_II


def _bound(norm: Callable[[DeltaWindow, int], float], window: DeltaWindow) -> Callable[[int], float]:
    return lambda position: norm(window, position)


def _tiles(deltas: int) -> Iterator[tuple[tuple[int, ...], list[tuple[int, int]]]]:
    """Positions that are in memory together, and the pairs of them to compare: each pair of all once."""
    if deltas <= COMPARED_AT_ONCE:
        yield tuple(range(deltas)), list(combinations(range(deltas), 2))
        return
    half = COMPARED_AT_ONCE // 2
    groups = [tuple(range(start, min(start + half, deltas))) for start in range(0, deltas, half)]
    for at, group in enumerate(groups):
        yield group, list(combinations(group, 2))
        for later in groups[at + 1 :]:
            yield (*group, *later), list(product(group, later))


class _PairLane:
    """Sums of one leaf at a time."""

    def __init__(
        self, reader: PartReader, chosen: tuple[int, ...], pairs: Sequence[tuple[int, int]], elements: int
    ) -> None:
        self._reader, self._chosen, self._pairs, self._elements = reader, chosen, pairs, elements
        self._rows = {position: np.empty(min(LEAF_ELEMENTS, elements), dtype=np.float32) for position in chosen}
        self._one: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)
        self._difference: Float64s = np.empty(LEAF_ELEMENTS, dtype=np.float64)

    def leaf_sums(self, leaf: int) -> list[float]:
        """Of each pair, the leaf sum of the squares of its differences."""
        first, end = leaf * LEAF_ELEMENTS, min(self._elements, (leaf + 1) * LEAF_ELEMENTS)
        for position, row_L in self._rows.items():
            np.copyto(row_L[: end - first], self._reader.numbers(position, first, end))
        held = -1
        sums = []
        for one, other in self._pairs:
            if one != held:
                np.copyto(self._one[: end - first], self._rows[one][: end - first])
                held = one
            sums.append(self._squared(self._rows[other][: end - first]))
        return sums

    def _squared(self, other_L: Float32s) -> float:
        difference_L = self._difference[: len(other_L)]
        np.copyto(difference_L, other_L)  # exact; a difference that converts as it goes takes longer
        np.subtract(self._one[: len(other_L)], difference_L, out=difference_L)
        np.multiply(difference_L, difference_L, out=difference_L)
        return fold_leaf(self._difference, len(other_L))
