"""A committed round's update as it travels: what its encoding says goes into the model, what it drops into the next round.

    u  (server optimizer) ─▶ t = u + residual ─▶ encode ─▶ applied delta
                                                   │ decode
                                                   ▼
                             base + d: the model   d ─▶ t − d: the next residual, a slot of server_state

So the model *is* base + decode(applied delta), and who has the base needs only that (docs/protocol.md#downlink).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.codecs import CODECS
from common.codecs.base import Float32s
from common.errors import ModelOverflow
from common.plan import codecs as plan
from common.statements.kinds import Tensor

Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class Beside:
    """Where a round's outputs beside the model go, from first byte to last; each view is valid during the call only."""

    applied_delta: Write | None = None
    """None exactly where the plan has no downlink."""
    server_state: Write | None = None
    """None exactly where rounds leave none: `plan.leaves_server_state`."""


class DownlinkStep:
    """Between the server optimizer and the model. Takes whole blocks of the codec at a time, and at last what is left."""

    def __init__(
        self, section: plan.DownlinkCodec, manifest: Sequence[Tensor], row_elements: int, applied_delta: Write
    ) -> None:
        """
        Args:
            row_elements: the most elements at once.
        """
        self._codec = CODECS[section.type]
        self._header = tensors.trainable_header(manifest)
        self._applied_delta = applied_delta
        blocks = -(-row_elements // self._codec.block_elements)
        self._decoded: Float32s = np.empty(blocks * self._codec.block_elements, dtype=np.float32)
        self._finite = np.empty(row_elements, dtype=np.bool_)
        self._done = 0
        self._applied_delta(memoryview(self._codec.header(manifest)))

    def send(self, update_B: Float32s, residual_B: Float32s | None) -> Float32s:
        """The next numbers of the update as they come out at the other end; valid until the next call.

        Args:
            update_B: float32, shape (B,); used up.
            residual_B: what earlier rounds dropped, then what this one drops; None where the codec drops nothing.

        Raises:
            ModelOverflow: with what earlier rounds dropped, one of them is not finite.
        """
        if residual_B is not None:
            with np.errstate(all="ignore"):  # what overflows is found by its result
                np.add(update_B, residual_B, out=update_B)
        self._check_finite(update_B)
        encoded = self._codec.encode(update_B)
        self._applied_delta(encoded)
        decoded_B = self._codec.decode(encoded, self._decoded)[: len(update_B)]
        if residual_B is not None:
            np.subtract(update_B, decoded_B, out=residual_B)
        self._done += len(update_B)
        return decoded_B

    def _check_finite(self, wanted_B: Float32s) -> None:
        finite_B = self._finite[: len(wanted_B)]
        np.isfinite(wanted_B, out=finite_B)
        if not finite_B.all():
            at = int(finite_B.argmin())
            place = tensors.locate(self._header, self._done + at)
            raise ModelOverflow(f"The update would hold {float(wanted_B[at])} in tensor {place}.")
