"""A committed round's update as it travels: what its encoding says goes into the model, what it drops into the next round.

    u  (server optimizer) ─▶ t = u + residual ─▶ encode ─▶ applied delta
                                                   │ decode
                                                   ▼
                             base + d: the model   d ─▶ t − d: the next residual, in server_state

So the model *is* base + decode(applied delta), and who has the base needs only that (docs/protocol.md#downlink).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.codecs import CODECS
from common.codecs.base import PIECE_ELEMENTS, Float32s
from common.errors import ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.reduce.window import read_head
from common.statements.kinds import Tensor

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class Beside:
    """Where a round's outputs beside the model go, from first byte to last; each view is valid during the call only."""

    applied_delta: Write
    server_state: Write | None
    """None where the codec drops nothing."""


class DownlinkStep:
    """Between the server optimizer and the model. Takes pieces of any length; works in whole blocks of the codec."""

    def __init__(
        self,
        plan: Plan,
        manifest: Sequence[Tensor],
        server_state: ChunkSource | None,
        add: Callable[[Float32s], None],
        beside: Beside,
    ) -> None:
        """
        Args:
            server_state: the round's input; None where there is none yet.
            add: gets what is added to the base, piece after piece.

        Raises:
            WrongTensors: the server_state is not the manifest's, or the plan has none.
        """
        if plan.downlink is None or plan.leaves_server_state != (beside.server_state is not None):
            raise ValueError("where outputs go is not what the plan's downlink makes")
        self._codec = CODECS[plan.downlink.type]
        self._header = tensors.trainable_header(manifest)
        self._add, self._applied_delta, self._server_state = add, beside.applied_delta, beside.server_state
        self._residual = None if server_state is None else _open_residual(plan, server_state, manifest)
        at_once = max(1, PIECE_ELEMENTS // self._codec.block_elements) * self._codec.block_elements
        self._wanted: Float32s = np.empty(at_once, dtype=np.float32)
        self._decoded: Float32s = np.empty(at_once, dtype=np.float32)
        self._kept_bytes = memoryview(bytearray(at_once * tensors.ELEMENT_BYTES))
        self._kept: Float32s = np.frombuffer(self._kept_bytes, dtype="<f4")
        self._finite = np.empty(at_once, dtype=np.bool_)
        self._filled = self._done = 0
        self._applied_delta(memoryview(self._codec.header(manifest)))
        if self._server_state is not None:
            self._server_state(memoryview(self._header))

    def take(self, update_B: Float32s) -> None:
        """The next numbers of the update.

        Raises:
            ModelOverflow: with what earlier rounds dropped, one of them is not finite.
            CorruptChunk: the server_state changed on disk.
        """
        while len(update_B):
            room_B = self._wanted[self._filled :][: len(update_B)]
            np.copyto(room_B, update_B[: len(room_B)])
            self._filled += len(room_B)
            update_B = update_B[len(room_B) :]
            if self._filled == len(self._wanted):
                self._flush()

    def finish(self) -> None:
        """All numbers were taken."""
        self._flush()

    def _flush(self) -> None:
        wanted_B = self._wanted[: self._filled]
        if not len(wanted_B):
            return
        kept_B, kept_bytes = self._kept[: len(wanted_B)], self._kept_bytes[: wanted_B.nbytes]
        if self._residual is not None:
            self._residual.read_into(kept_bytes)
            with np.errstate(all="ignore"):  # what overflows is found by its result
                np.add(wanted_B, kept_B, out=wanted_B)
        self._check_finite(wanted_B)
        encoded = self._codec.encode(wanted_B)
        self._applied_delta(encoded)
        decoded_B = self._codec.decode(encoded, self._decoded)[: len(wanted_B)]
        self._add(decoded_B)
        if self._server_state is not None:
            np.subtract(wanted_B, decoded_B, out=kept_B)
            self._server_state(kept_bytes)
        self._done += self._filled
        self._filled = 0

    def _check_finite(self, wanted_B: Float32s) -> None:
        finite_B = self._finite[: len(wanted_B)]
        np.isfinite(wanted_B, out=finite_B)
        if not finite_B.all():
            at = int(finite_B.argmin())
            place = tensors.locate(self._header, self._done + at)
            raise ModelOverflow(f"The update would hold {float(wanted_B[at])} in tensor {place}.")


def _open_residual(plan: Plan, server_state: ChunkSource, manifest: Sequence[Tensor]) -> BlobStream:
    """A server_state after its header.

    Raises:
        WrongTensors: it is not the manifest's, or rounds of this plan have none.
    """
    if not plan.leaves_server_state:
        raise WrongTensors(f"The round starts from server_state {server_state.ref}; by its plan there is none.")
    header, expected = tensors.trainable_header(manifest), tensors.delta_size(manifest)
    if server_state.ref.size != expected:
        raise WrongTensors(
            f"The server_state has {server_state.ref.size:,} bytes, expected {expected:,} for its tensors."
        )
    stream = BlobStream(server_state)
    found = memoryview(bytearray(len(header)))
    stream.read_into(found)
    if found != header:
        tensors.check_header(read_head(server_state), header)
    return stream
