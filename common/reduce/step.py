"""From what a rule combined to the new model: the server optimizer, the downlink, base + update, and what is handed on.

    for each row of the elements:     B of them where a server_state or a downlink goes by rows, else a block
        update = server_optimizer(combined, base, slots)            server_optimizer.py
        with a downlink: update = decode(encode(update + residual)) downlink.py
        write(base + update)
        with a server_state: write its row                          server_state.py

One sequential read and write of base and of server_state; memory is a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.codecs.base import Float32s
from common.errors import ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.reduce import registry
from common.reduce.downlink import Beside, DownlinkStep
from common.reduce.loops import BLOCK_ELEMENTS
from common.reduce.server_state import ServerState, layout_of, row_elements
from common.statements.kinds import Tensor

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class Start:
    """What a step goes from: the plan's section, and the round's inputs but the deltas."""

    plan: Plan
    manifest: Sequence[Tensor]
    base: BlobStream
    """After its header."""
    server_state: ChunkSource | None


class ModelStep:
    """Takes combined deltas in pieces of any length, from first to last, and writes model, applied delta and server_state."""

    def __init__(self, start: Start, write: Write, beside: Beside) -> None:
        """
        Raises:
            WrongTensors: the server_state is not what the plan's rounds leave.
            CorruptChunk: it changed on disk.
        """
        plan, manifest = start.plan, start.manifest
        if (beside.applied_delta is None) != (plan.downlink is None):
            raise ValueError("an applied delta goes somewhere exactly if the plan has a downlink")
        if (beside.server_state is None) == bool(plan.step_slots):
            raise ValueError("a server_state goes somewhere exactly if the plan's rounds leave one")
        self._header = tensors.model_header(manifest)
        self._base, self._write = start.base, write
        self._optimizer = registry.server_optimizer_for(plan.server_optimizer)
        self._optimizer_slots = len(plan.server_optimizer.slots)
        self._state = self._open_state(start, beside.server_state)
        self._by_rows = self._state is not None or plan.downlink is not None
        rows = row_elements(plan, tensors.trainable_elements(manifest)) if self._by_rows else BLOCK_ELEMENTS
        self._downlink: DownlinkStep | None = None
        if plan.downlink is not None and beside.applied_delta is not None:
            self._downlink = DownlinkStep(plan.downlink, manifest, rows, beside.applied_delta)
        self._row: Float32s = np.empty(rows, dtype=np.float32)
        self._filled = self._done = 0
        self._content = memoryview(bytearray(rows * tensors.ELEMENT_BYTES))
        self._model: Float32s = np.frombuffer(self._content, dtype="<f4")
        self._finite = np.empty(rows, dtype=np.bool_)

    def _open_state(self, start: Start, write: Write | None) -> ServerState | None:
        layout = layout_of(start.plan, start.manifest)
        if layout is None or write is None:
            if start.server_state is not None:
                ref = start.server_state.ref
                raise WrongTensors(f"The round starts from server_state {ref}; by its plan there is none.")
            return None
        state = ServerState(layout, tensors.trainable_header(start.manifest), start.server_state, write)
        state.start(self._optimizer.begin(state.scalars), self._optimizer.initial)
        return state

    def apply(self, combined_N: Float32s) -> None:
        """The next combined numbers; they are used up.

        Raises:
            ModelOverflow: an element of the new model, of the update or of the server_state is NaN or infinite.
            CorruptChunk: the server_state changed on disk.
        """
        rows = len(self._row)
        while len(combined_N):
            if not self._by_rows or (not self._filled and len(combined_N) >= rows):
                self._step(combined_N[:rows])
                combined_N = combined_N[rows:]
                continue
            room_B = self._row[self._filled :][: len(combined_N)]
            np.copyto(room_B, combined_N[: len(room_B)])
            self._filled += len(room_B)
            combined_N = combined_N[len(room_B) :]
            if self._filled == rows:
                self._flush()

    def finish(self) -> None:
        """All combined numbers were taken.

        Raises:
            ModelOverflow, CorruptChunk: as `apply`.
        """
        if self._filled:
            self._flush()

    def _flush(self) -> None:
        count, self._filled = self._filled, 0
        self._step(self._row[:count])

    def _step(self, update_B: Float32s) -> None:
        """One row, or the last numbers of all: base, update, model."""
        content = self._content[: update_B.nbytes]
        model_B = self._model[: len(update_B)]
        self._base.read_into(content)
        slots = [] if self._state is None else self._state.begin_row(len(update_B))
        own, residual = slots[: self._optimizer_slots], slots[self._optimizer_slots :]
        with np.errstate(all="ignore"):  # what overflows is found by its result
            self._optimizer.update(update_B, model_B, own)
        if self._downlink is not None:
            update_B = self._downlink.send(update_B, residual[0] if residual else None)
        with np.errstate(all="ignore"):
            np.add(model_B, update_B, out=model_B)
        self._check_finite(model_B)
        self._write(content)
        if self._state is not None:
            self._state.end_row()
        self._done += len(model_B)

    def _check_finite(self, model_B: Float32s) -> None:
        finite_B = self._finite[: len(model_B)]
        np.isfinite(model_B, out=finite_B)
        if not finite_B.all():
            at = int(finite_B.argmin())
            place = tensors.locate(self._header, self._done + at)
            raise ModelOverflow(f"The new model would hold {float(model_B[at])} in tensor {place}.")
