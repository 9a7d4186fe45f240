"""Windows of all deltas, combined by the plan's rule, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.codecs.base import DeltaCodec, Float32s
from common.errors import WrongDeltaCount
from common.plan.rules import RuleSection, unfit
from common.reduce import registry
from common.reduce.average import Averager
from common.reduce.looks import FirstLook
from common.reduce.parts import PartReader, SliceDigests
from common.reduce.pipeline import in_lanes
from common.reduce.rule import Average, Pieces, SideBySide
from common.reduce.window import DeltaWindow

STACK_NUMBERS = 4_194_304
"""So many numbers, 16 MiB, of all institutions together are side by side in each lane."""

Combined = Generator[Float32s, None, None]
"""What the rule gives, window after window, float32, each shape (N,), writable and valid until the next."""


@dataclass(frozen=True, slots=True)
class Deltas:
    """A sealed round's deltas, in ascending bytewise order of institutions."""

    codec: DeltaCodec
    tensors_header: bytes
    num_tokens: tuple[int, ...]
    sources: Sequence[SliceDigests]


def combined(section: RuleSection, deltas: Deltas, lanes: int) -> Combined:
    """What the rule makes of the deltas.

    Raises:
        WrongDeltaCount: too few deltas for the rule's guarantee, or too many.
        WrongTensors, CorruptChunk: as `DeltaWindow.read`.
    """
    why = unfit(section, len(deltas.sources))
    if why is not None:
        raise WrongDeltaCount(f"The rule {why}.")
    rule = registry.rule_for(section)
    with np.errstate(all="ignore"):  # what overflows is found by its result
        look = FirstLook(deltas.codec, deltas.tensors_header, lanes)
        verdict = rule.decide(section, look.sealed(rule.look, deltas.num_tokens, deltas.sources))
    if isinstance(verdict, Average):
        return _averaged(verdict, deltas, lanes)
    return _side_by_side(verdict, deltas, lanes)


def _averaged(average: Average, deltas: Deltas, lanes: int) -> Combined:
    windows = [DeltaWindow(deltas.codec, deltas.tensors_header) for _ in range(lanes)]
    made = [_AverageLane(average, window, deltas.sources) for window in windows]
    return in_lanes([lane.combine for lane in made], windows[0].windows)


class _AverageLane:
    """Combines one window at a time, with buffers of its own; windows do not depend on each other."""

    def __init__(self, average: Average, window: DeltaWindow, deltas: Sequence[SliceDigests]) -> None:
        self._window = window
        self._used = [
            delta.source for delta, coefficient in zip(deltas, average.coefficients, strict=True) if coefficient != 0.0
        ]
        self._averager = Averager(average, window.max_elements)

    def combine(self, index: int) -> Float32s:
        with np.errstate(all="ignore"):  # what overflows is found by its result
            return self._averager.combine(self._numbers(index), self._window.window_elements(index))

    def _numbers(self, index: int) -> Iterator[Pieces]:
        for source in self._used:
            yield self._window.window_values(source, index)


def _side_by_side(verdict: SideBySide, deltas: Deltas, lanes: int) -> Combined:
    elements = DeltaWindow(deltas.codec, deltas.tensors_header).all_elements
    at_once = max(1, min(elements, STACK_NUMBERS // len(verdict.chosen)))
    made = [
        _StackLane(verdict, PartReader(deltas.codec, deltas.tensors_header, deltas.sources), elements, at_once)
        for _ in range(lanes)
    ]
    return in_lanes([lane.combine for lane in made], -(-elements // at_once))


class _StackLane:
    """Combines as many numbers at a time as fit side by side."""

    def __init__(self, verdict: SideBySide, reader: PartReader, elements: int, at_once: int) -> None:
        self._chosen, self._reader, self._elements, self._at_once = verdict.chosen, reader, elements, at_once
        self._stack: Float32s = np.empty((len(verdict.chosen), at_once), dtype=np.float32)
        self._stacked = verdict.stacked(at_once)

    def combine(self, index: int) -> Float32s:
        first, end = index * self._at_once, min(self._elements, (index + 1) * self._at_once)
        stack_IN = self._stack[:, : end - first]
        for row, position in enumerate(self._chosen):
            np.copyto(stack_IN[row], self._reader.numbers(position, first, end))
        with np.errstate(all="ignore"):
            return self._stacked.combine(stack_IN)
