"""server_states made and taken apart by the page, docs/protocol.md#server-state, without common.reduce."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]


def state_blob(
    slots: Mapping[str, Float32s],
    b: int,
    scalars: Sequence[float] = (),
    names: Sequence[str] = ("beta1_power", "beta2_power"),
) -> bytes:
    """The blob with these slots' numbers, b a row at most."""
    (elements,) = {len(values) for values in slots.values()}
    b = min(b, elements)
    rows, begin = -(-elements // b), 8 * len(scalars)
    members = {
        "__metadata__": {"scalars": " ".join(names[: len(scalars)]), "slots": " ".join(slots)},
        "scalars": {"dtype": "F64", "shape": [len(scalars)], "data_offsets": [0, begin]},
        "state": {
            "dtype": "F32",
            "shape": [rows, len(slots), b],
            "data_offsets": [begin, begin + 4 * rows * len(slots) * b],
        },
    }
    text = json.dumps(members, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    parts = [len(text).to_bytes(8, "little"), text, np.array(scalars, "<f8").tobytes()]
    for row in range(rows):
        for values in slots.values():
            piece = values[row * b : (row + 1) * b].astype("<f4").tobytes()
            parts.append(piece + bytes(4 * b - len(piece)))
    return b"".join(parts)


def slots_of(blob: bytes, elements: int) -> tuple[list[float], dict[str, Float32s]]:
    """Scalars, and each slot's numbers."""
    length = 8 + int.from_bytes(blob[:8], "little")
    members = json.loads(blob[8:length])
    rows, slots, b = members["state"]["shape"]
    scalars = np.frombuffer(blob, "<f8", offset=length, count=members["scalars"]["shape"][0])
    state = np.frombuffer(blob, "<f4", offset=length + scalars.nbytes).reshape(rows, slots, b)
    names = members["__metadata__"]["slots"].split()
    return scalars.tolist(), {name: state[:, at].reshape(-1)[:elements].copy() for at, name in enumerate(names)}
