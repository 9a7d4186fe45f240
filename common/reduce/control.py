"""SCAFFOLD's server control variate: by how much the institutions' changed, on average over all who accepted the plan.

    mean = Σ controls ÷ |S|         in float64, in ascending order of institutions, rounded once: `weighted-mean` of equals
    c    = c + (|S| ÷ N) × mean     in float32; c is the slot `control` of server_state, at first zeros

Like the model it is made in one read and one write, in the memory of a few chunks (docs/protocol.md#control-variates).

Source: Karimireddy et al., arXiv:1910.06378, algorithm 1, line 17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import ChunkSource
from common.codecs import CODECS
from common.codecs.base import Float32s
from common.errors import ImplausibleWeight, WrongTensors
from common.plan.model import Plan
from common.plan.rules import WeightedMean
from common.reduce.lanes import Deltas, combined
from common.reduce.parts import SliceDigests
from common.reduce.server_state import ServerState, layout_of
from common.reduce.window import DeltaWindow
from common.statements.kinds import Tensor

Write = Callable[[memoryview], object]
CONTROL_CODEC = "float32"
"""Whatever the plan's codec: what a change loses would stay lost, as no delta carries it on."""


@dataclass(frozen=True, slots=True)
class ControlJob:
    """What the next control variate is a function of, and nothing else."""

    plan: Plan
    manifest: Sequence[Tensor]
    controls: Sequence[ChunkSource | None]
    """Of the used contributions, in ascending bytewise order of institutions."""
    accepted: int
    """N: how many institutions had accepted the plan when the round was opened."""
    server_state: ChunkSource | None
    """The control variate that the round started from; None: zeros."""


class ControlStep:
    """Checked when it is made, done by `run`."""

    def __init__(self, job: ControlJob, write: Write | None) -> None:
        """
        Args:
            write: gets the next server_state, from first byte to last.

        Raises:
            ImplausibleWeight: more contributions than acceptances.
            WrongTensors: a control is lacking, or has another size than the manifest gives.
        """
        layout = layout_of(job.plan, job.manifest)
        if layout is None or write is None:
            raise ValueError("a control variate goes into a server_state")
        if job.accepted < len(job.controls):
            raise ImplausibleWeight(f"{len(job.controls)} contributed, of {job.accepted} who accepted the plan.")
        self._header = tensors.trainable_header(job.manifest)
        self._sources = [source for source in job.controls if source is not None]
        if len(self._sources) < len(job.controls):
            raise WrongTensors("A contribution has no control, in a run of correction scaffold.")
        window = DeltaWindow(CODECS[CONTROL_CODEC], self._header)
        for source in self._sources:
            window.check_size(source)
        self._layout, self._write, self._source = layout, write, job.server_state
        self._share = np.float32(float(len(self._sources)) / float(job.accepted))
        self._row: Float32s = np.empty(layout.row_elements, dtype=np.float32)
        self._filled = 0

    def run(self, lanes: int) -> None:
        """Read the controls and the state, write the next state.

        Raises:
            ModelOverflow: an element of it would not be finite.
            WrongTensors, CorruptChunk: about a blob.
        """
        sealed = Deltas(
            CODECS[CONTROL_CODEC],
            self._header,
            tuple(1 for _ in self._sources),
            [SliceDigests(source) for source in self._sources],
        )
        state = ServerState(self._layout, self._header, self._source, self._write)
        state.start((), ())
        windows = combined(WeightedMean(), sealed, lanes)
        try:
            for mean_N in windows:
                self._apply(state, mean_N)
        finally:
            windows.close()
        if self._filled:
            self._step(state)

    def _apply(self, state: ServerState, mean_N: Float32s) -> None:
        """The next numbers of the mean, in pieces of any length, cut into the state's rows."""
        while len(mean_N):
            room_B = self._row[self._filled :][: len(mean_N)]
            np.copyto(room_B, mean_N[: len(room_B)])
            self._filled += len(room_B)
            mean_N = mean_N[len(room_B) :]
            if self._filled == len(self._row):
                self._step(state)

    def _step(self, state: ServerState) -> None:
        mean_B, self._filled = self._row[: self._filled], 0
        (control_B,) = state.begin_row(len(mean_B))
        with np.errstate(all="ignore"):  # what overflows is found by its result
            np.multiply(mean_B, self._share, out=mean_B)
            np.add(control_B, mean_B, out=control_B)
        state.end_row()
