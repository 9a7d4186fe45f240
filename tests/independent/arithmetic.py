"""A round's new model, bit for bit: docs/protocol.md#tensors and #arithmetic."""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import NDArray

from tests.independent.statements import Json, must

Floats = NDArray[np.float64]


def header(tensors: list[Json]) -> tuple[bytes, int]:
    """The bytes before the data, of manifest entries in their order; and how many bytes of data follow."""
    members, at = [], 0
    for tensor in tensors:
        end = at + 4 * math.prod(tensor["shape"])
        entry = {"dtype": "F32", "shape": tensor["shape"], "data_offsets": [at, end]}
        members.append(json.dumps(tensor["name"]) + ":" + json.dumps(entry, separators=(",", ":")))
        at = end
    head = ("{" + ",".join(members) + "}").encode()
    head += b" " * (-(8 + len(head)) % 64)
    return len(head).to_bytes(8, "little") + head, at


def total(values: Floats) -> np.float64:
    """#sums: additions in float64 by one fixed tree."""

    def fold(sums: list[np.float64]) -> np.float64:
        if len(sums) < 2:
            return sums[0] if sums else np.float64(0)
        k = 1 << (len(sums) - 1).bit_length() - 1
        return fold(sums[:k]) + fold(sums[k:])

    leaves = np.zeros((-(-len(values) // 65536), 65536))
    leaves.reshape(-1)[: len(values)] = values
    while leaves.shape[1] > 1:
        half = leaves.shape[1] // 2
        leaves = leaves[:, half:] + leaves[:, :half]
    return fold(list(leaves[:, 0]))


def new_model(plan: Json, base: bytes, deltas: list[tuple[int, bytes]]) -> bytes:
    """#weighted-mean, of (num_tokens, delta blob) with institutions in ascending order.

    Raises:
        Failed: the inputs give no model.
    """
    trainable = [tensor for tensor in plan["manifest"] if tensor["group"] == "trainable"]
    (begin, size), (start, whole) = (
        header(trainable),
        header([it for it in plan["manifest"] if it["group"] != "personal"]),
    )
    must(
        base.startswith(start) and len(base) == len(start) + whole, "rounds", "the base model is none of this manifest"
    )
    acc, longest = np.zeros(size // 4), float(plan["plan"]["max_delta_l2"])
    for num_tokens, delta in deltas:
        must(delta.startswith(begin) and len(delta) == len(begin) + size, "rounds", "wrong-tensors")
        d = np.frombuffer(delta, "<f4", offset=len(begin)).astype(np.float64)
        must(np.isfinite(d).all(), "rounds", "non-finite-delta")
        must(np.sqrt(total(d * d)) <= longest, "rounds", "delta-too-long")
        acc = acc + np.float64(num_tokens) * d
    old = np.frombuffer(base, "<f4", offset=len(start), count=len(acc))
    with np.errstate(over="ignore"):
        g = (acc / np.float64(sum(num_tokens for num_tokens, _ in deltas))).astype(np.float32)
        new = old + np.float32(float(plan["plan"]["server_optimizer"]["learning_rate"])) * g
    must(np.isfinite(g).all() and np.isfinite(new).all(), "rounds", "model-overflow")
    return bytes(start + new.astype("<f4").tobytes() + base[len(start) + size :])
