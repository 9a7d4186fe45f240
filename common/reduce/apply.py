"""From a model that is here to a later one, by applied deltas: what a member does in place of fetching the model.

    for each chunk of the held model:    4 MiB, without those that nobody wants and that no delta changes
        for each applied delta, in the order of rounds: numbers += its decoded numbers
        write(chunk)                     header and frozen tensors as they are

The same additions as at the coordinator, so the same bits (docs/protocol.md#downlink).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import ChunkSource, chunk_buffer
from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.codecs.base import Float32s
from common.errors import WrongTensors
from common.reduce.window import DeltaWindow
from common.statements.kinds import Tensor


@dataclass(frozen=True, slots=True)
class ApplyJob:
    """What the later model is a function of, and nothing else."""

    codec: str
    """`downlink.type` of the plan."""
    manifest: Sequence[Tensor]
    held: ChunkSource
    deltas: Sequence[ChunkSource]
    """Applied deltas, in the order of their rounds."""


def apply_deltas(
    job: ApplyJob, write: Callable[[int, memoryview], object], wanted: Callable[[int], bool] = lambda index: True
) -> None:
    """Hand the later model's chunks to `write`, with their index, ascending; each is valid during the call only.

    A chunk is read before it is written, so both models may have one file.

    Args:
        wanted: of which chunks; of frozen tensors no other ones are read.

    Raises:
        WrongTensors: the model or a delta is not the manifest's.
        CorruptChunk: one of them changed on disk.
    """
    expected = tensors.model_size(job.manifest)
    if job.held.ref.size != expected:
        raise WrongTensors(f"Model {job.held.ref} has {job.held.ref.size:,} bytes, expected {expected:,}.")
    begin = len(tensors.model_header(job.manifest))
    end = begin + tensors.ELEMENT_BYTES * tensors.trainable_elements(job.manifest)
    updates = [_Update(job, delta) for delta in job.deltas]
    buffer = chunk_buffer(job.held.ref)
    for index in range(job.held.ref.chunks):
        before = index * CHUNK_BYTES
        if before >= end and not wanted(index):
            continue
        chunk = job.held.read_chunk(index, buffer)
        first, last = max(0, begin - before), min(len(chunk), end - before)
        if first < last:
            values_N: Float32s = np.frombuffer(chunk[first:last], dtype="<f4")
            for update in updates:
                update.add_to(values_N)
        if wanted(index):
            write(index, chunk)


class _Update:
    """An applied delta's numbers, from first to last."""

    def __init__(self, job: ApplyJob, delta: ChunkSource) -> None:
        self._window = DeltaWindow(CODECS[job.codec], tensors.trainable_header(job.manifest))
        self._window.check_size(delta)
        self._delta = delta
        self._pieces = self._read()
        self._rest: Float32s = np.empty(0, dtype=np.float32)

    def add_to(self, values_N: Float32s) -> None:
        """Add as many of the next numbers, in place."""
        while len(values_N):
            if not len(self._rest):
                self._rest = next(self._pieces)
            count = min(len(values_N), len(self._rest))
            with np.errstate(all="ignore"):  # a result that is none has another leaf than the committed one
                np.add(values_N[:count], self._rest[:count], out=values_N[:count])
            values_N, self._rest = values_N[count:], self._rest[count:]

    def _read(self) -> Iterator[Float32s]:
        for index in range(self._window.chunks):
            yield from self._window.values(self._delta, index)
