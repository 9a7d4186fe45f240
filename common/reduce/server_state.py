"""What a run's rounds hand on besides the model: one blob, read once and written once a round, a row at a time.

    header      safetensors; its `__metadata__` says what scalars and slots are
    scalars     float64, shape (k,)                 running products, such as beta1^t
    state       float32, shape (rows, slots, B)     row i: each slot's numbers of the elements from i·B on
                                                    slots: the server optimizer's, then the downlink's residual;
                                                    with SCAFFOLD its control variate alone

    layout = layout_of(plan, manifest)              None where rounds leave no server_state
    layout.size                                     bytes, by plan and manifest alone

So memory is one row, whatever the model's size and however many slots there are (docs/protocol.md#server-state).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common import tensors
from common.blobs.reader import BlobStream, ChunkSource
from common.codecs import CODECS
from common.codecs.base import PIECE_ELEMENTS, Float32s
from common.errors import ModelOverflow, WrongTensors
from common.plan.model import Plan
from common.statements.kinds import Tensor

Write = Callable[[memoryview], object]

_SCALAR_BYTES = 8
_LENGTH_BYTES = 8
_FIX = "No round of this plan leaves it: docs/protocol.md#server-state says what one leaves."


def row_elements(plan: Plan, elements: int) -> int:
    """B: how many elements a row covers: what the downlink encodes at once, whole blocks of its codec."""
    block = 1 if plan.downlink is None else CODECS[plan.downlink.type].block_elements
    return max(1, min(elements, PIECE_ELEMENTS // block * block))


@dataclass(frozen=True, slots=True)
class Layout:
    """How a server_state lies in its blob."""

    scalars: tuple[str, ...]
    slots: tuple[str, ...]
    elements: int
    row_elements: int

    @property
    def rows(self) -> int:
        return -(-self.elements // self.row_elements)

    @property
    def row_bytes(self) -> int:
        return len(self.slots) * self.row_elements * tensors.ELEMENT_BYTES

    @property
    def size(self) -> int:
        """Bytes of the blob."""
        return len(self.header) + _SCALAR_BYTES * len(self.scalars) + self.rows * self.row_bytes

    @property
    def header(self) -> bytes:
        """The blob's first bytes."""
        begin = _SCALAR_BYTES * len(self.scalars)
        entries = {
            "__metadata__": {"scalars": " ".join(self.scalars), "slots": " ".join(self.slots)},
            "scalars": {"dtype": "F64", "shape": [len(self.scalars)], "data_offsets": [0, begin]},
            "state": {
                "dtype": "F32",
                "shape": [self.rows, len(self.slots), self.row_elements],
                "data_offsets": [begin, begin + self.rows * self.row_bytes],
            },
        }
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(_LENGTH_BYTES + len(text)) % tensors.ALIGNMENT)
        return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def layout_of(plan: Plan, manifest: Sequence[Tensor]) -> Layout | None:
    """The layout of every server_state of a run; None where its rounds leave none."""
    if not plan.leaves_server_state:
        return None
    elements = tensors.trainable_elements(manifest)
    return Layout(plan.server_optimizer.scalars, plan.slots, elements, row_elements(plan, elements))


class StateReader:
    """A server_state from first byte to last, checked against its layout before anything of it is used."""

    def __init__(self, layout: Layout, source: ChunkSource) -> None:
        """
        Raises:
            WrongTensors: another size or header, or a scalar that is no finite number.
            CorruptChunk: the blob changed on disk.
        """
        header, ref = layout.header, source.ref
        wanted = f"{' and '.join(layout.slots)} of {layout.elements:,} elements, {layout.row_elements:,} a row"
        if ref.size != layout.size:
            raise WrongTensors(f"Server_state {ref}, expected {layout.size:,} bytes for {wanted}.", _FIX)
        self._stream = BlobStream(source)
        found = memoryview(bytearray(len(header)))
        self._stream.read_into(found)
        if found != header:
            raise WrongTensors(f"Server_state {ref} has another header than {wanted}.", _FIX)
        content = memoryview(bytearray(_SCALAR_BYTES * len(layout.scalars)))
        self._stream.read_into(content)
        self.scalars: tuple[float, ...] = tuple(np.frombuffer(content, dtype="<f8").tolist())
        for name, value in zip(layout.scalars, self.scalars, strict=True):
            if not math.isfinite(value):
                raise WrongTensors(f"Server_state {ref} says {value} for {name}, expected a finite number.", _FIX)

    def read_row(self, into: memoryview) -> None:
        """
        Raises:
            CorruptChunk: the blob changed on disk.
        """
        self._stream.read_into(into)


class ServerState:
    """Both ends of a round: rows come from the state before, are changed in place, and go to the state after.

    for each row, in order:    slots = state.begin_row(count);  …;  state.end_row()
    """

    def __init__(self, layout: Layout, header: bytes, source: ChunkSource | None, write: Write) -> None:
        """
        Args:
            header: the model's, to say in which tensor a number is none.
            source: the round's input; None where there is none yet.
            write: gets the round's output, from first byte to last.

        Raises:
            WrongTensors, CorruptChunk: as `StateReader`.
        """
        self._layout, self._header, self._write = layout, header, write
        self._reader = None if source is None else StateReader(layout, source)
        self._content = memoryview(bytearray(layout.row_bytes))
        row: Float32s = np.frombuffer(self._content, dtype="<f4")
        self._slots = row.reshape(len(layout.slots), layout.row_elements)
        self._finite = np.empty(layout.row_elements, dtype=np.bool_)
        self._initial = tuple(0.0 for _ in layout.slots)
        self._count = self._done = 0

    @property
    def scalars(self) -> tuple[float, ...] | None:
        """Those of the state before; None where there is none."""
        return None if self._reader is None else self._reader.scalars

    def start(self, scalars: Sequence[float], initial: Sequence[float]) -> None:
        """Write what comes before the rows.

        Args:
            scalars: for the state after.
            initial: what a slot's numbers are where there is no state before; of the residual 0, left out.
        """
        self._initial = (*initial, *(0.0 for _ in self._layout.slots[len(initial) :]))
        values = np.empty(len(self._layout.scalars), dtype="<f8")
        for position, value in enumerate(scalars):
            values[position] = value
        self._write(memoryview(self._layout.header))
        self._write(memoryview(values.tobytes()))

    def begin_row(self, count: int) -> list[Float32s]:
        """Each slot's numbers of the next `count` elements: a whole row, or what is left. To be changed in place.

        Raises:
            CorruptChunk: the state before changed on disk.
        """
        self._count = count
        if self._reader is not None:
            self._reader.read_row(self._content)
        else:
            for slot_B, value in zip(self._slots, self._initial, strict=True):
                slot_B.fill(value)
        return [slot_B[:count] for slot_B in self._slots]

    def end_row(self) -> None:
        """
        Raises:
            ModelOverflow: one of its numbers is not finite.
        """
        for name, slot_B in zip(self._layout.slots, self._slots, strict=True):
            self._check_finite(name, slot_B[: self._count])
            slot_B[self._count :].fill(0.0)
        self._write(self._content)
        self._done += self._count

    def _check_finite(self, name: str, slot_B: Float32s) -> None:
        finite_B = self._finite[: len(slot_B)]
        np.isfinite(slot_B, out=finite_B)
        if not finite_B.all():
            at = int(finite_B.argmin())
            place = tensors.locate(self._header, self._done + at)
            raise ModelOverflow(f"The server_state would hold {float(slot_B[at])} as {name} of tensor {place}.")
