"""reduce_round: one committed round's arithmetic, out of core (docs/protocol.md#arithmetic).

    for each window of the deltas:       a chunk of 4 MiB without the header, or a part of its numbers
        combined = rule(all institutions' numbers, in ascending bytewise order of names)
        write(base + update)             see step.py: server optimizer, downlink, server_state
    frozen tensors: copied

Everything that is read is hashed again by its reader, so a file that changed after it arrived is found before it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.blobs.reference import CHUNK_BYTES
from common.codecs import codec
from common.codecs.base import Float32s
from common.errors import ImplausibleWeight, SlotTaken, WrongTensors
from common.plan.model import MAX_NUM_TOKENS, Plan
from common.reduce import registry
from common.reduce.downlink import Beside
from common.reduce.rule import Weighted
from common.reduce.step import ModelStep, Start
from common.reduce.window import DeltaWindow, read_head
from common.statements.kinds import Tensor

LANES = 2
"""How many windows are combined at once; each lane holds a chunk, and 8 bytes for each number of a window."""

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class WeightedDelta:
    """One institution's part of a sealed round."""

    institution: str
    num_tokens: int
    reader: ChunkSource


@dataclass(frozen=True, slots=True)
class ReduceJob:
    """What a round's result is a function of, and nothing else."""

    plan: Plan
    """Names codec, rule and server optimizer."""
    manifest: Sequence[Tensor]
    base: ChunkSource
    deltas: Sequence[WeightedDelta]
    server_state: ChunkSource | None = None
    """What earlier rounds handed on; None where they hand nothing on, and before the first commit."""


def reduce_round(job: ReduceJob, write: Write, beside: Beside = Beside()) -> None:  # noqa: B008  # it is frozen
    """Compute the new model and hand its bytes to `write`, from first to last, each view valid during the call only.

    The order of `job.deltas` does not matter. Memory is a few chunks for any model and cohort.

    Args:
        beside: gets the other outputs, exactly those that the plan's rounds have.

    Raises:
        ImplausibleWeight: a num_tokens out of range, or no delta at all.
        SlotTaken: an institution stands twice.
        WrongTensors: base, server_state or a delta are not the manifest's.
        ModelOverflow: the new model, the update or the server_state would not be finite.
        CorruptChunk: a blob changed on disk.
    """
    deltas = in_order(job.deltas)
    delta_codec = codec(job.plan.codec)
    header = tensors.trainable_header(job.manifest)
    window = DeltaWindow(delta_codec, header)
    for delta in deltas:
        window.check_size(delta.reader)
    base = _open_base(job, write)
    step = ModelStep(Start(job.plan, job.manifest, base, job.server_state), write, beside)
    windows = [window, *(DeltaWindow(delta_codec, header) for _ in range(LANES - 1))]
    lanes = [_Lane(job.plan, each, deltas) for each in windows]
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="reduce") as pool:
        coming = deque(pool.submit(lane.combine, index) for index, lane in enumerate(lanes[: window.windows]))
        for index in range(window.windows):
            step.apply(coming.popleft().result())
            if index + len(lanes) < window.windows:
                coming.append(pool.submit(lanes[index % len(lanes)].combine, index + len(lanes)))
    step.finish()
    while frozen := base.take(CHUNK_BYTES):
        write(frozen)


def in_order(deltas: Sequence[WeightedDelta]) -> list[WeightedDelta]:
    """In ascending bytewise order of institutions' names, the order in which sums are taken.

    Raises:
        ImplausibleWeight, SlotTaken: as `reduce_round`.
    """
    ordered = sorted(deltas, key=lambda delta: delta.institution.encode())
    for before, after in pairwise(ordered):
        if before.institution == after.institution:
            raise SlotTaken(f"{after.institution} stands twice among the deltas of one round.")
    for delta in ordered:
        if not 1 <= delta.num_tokens <= MAX_NUM_TOKENS:
            raise ImplausibleWeight(
                f"num_tokens of {delta.institution} is {delta.num_tokens:,}, expected 1 to {MAX_NUM_TOKENS:,}."
            )
    if not ordered:
        raise ImplausibleWeight("A round without deltas has no mean.")
    return ordered


class _Lane:
    """Combines one window at a time, with buffers of its own; windows do not depend on each other."""

    def __init__(self, plan: Plan, window: DeltaWindow, deltas: Sequence[WeightedDelta]) -> None:
        self._window = window
        self._deltas = deltas
        self._rule = registry.rule_for(plan.rule, max_elements=window.max_elements)

    def combine(self, index: int) -> Float32s:
        """The rule's result for window `index`; valid until the next call."""
        with np.errstate(all="ignore"):  # what overflows is found by its result
            return self._rule.combine(self._numbers(index), self._window.window_elements(index))

    def _numbers(self, index: int) -> Iterator[Weighted]:
        for delta in self._deltas:
            yield delta.num_tokens, self._window.window_values(delta.reader, index)


def _open_base(job: ReduceJob, write: Write) -> BlobStream:
    """The base model after its header, which is the new model's too."""
    header = tensors.model_header(job.manifest)
    expected_size = tensors.model_size(job.manifest)
    base = BlobStream(job.base)
    while base.position < len(header):
        start = base.position
        piece = base.take(len(header) - start)
        if not piece or bytes(piece) != header[start : start + len(piece)]:
            tensors.check_header(read_head(job.base), header)
        write(piece)
    if job.base.ref.size != expected_size:
        raise WrongTensors(f"Base model {job.base.ref} has {job.base.ref.size:,} bytes, expected {expected_size:,}.")
    return base
