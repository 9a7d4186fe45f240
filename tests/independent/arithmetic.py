"""A round's new model, bit for bit: docs/protocol.md#tensors and #arithmetic."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.independent.rules import combined, total
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


def layout(codec: str, fraction: str) -> tuple[int, int, int]:
    """#codecs: bytes and numbers of a block, and the largest code, or of topk how many are kept."""
    if codec == "topk":
        share, k = Fraction(fraction), 0
        while 5 * (k + 1) + math.ceil((k + 1 + math.ceil(math.floor((k + 1) / share) / 256) - 1) / 8) <= 1024:
            k += 1
        return 1024, math.floor(k / share), k
    return {"bfloat16": (2, 1, 0), "int8": (128, 124, 127), "int4": (64, 120, 7)}[codec]


def sparse(blocks: NDArray[np.uint8], k: int, e: int, count: int) -> NDArray[np.float32]:
    """#codecs, topk: the numbers of whole blocks."""
    found = np.zeros((len(blocks), e), np.float32)
    for number, block in enumerate(blocks):
        bits = "".join(format(byte, "08b")[::-1] for byte in block[5 * k :].tolist()).rstrip("0")
        groups = [group for group, ones in enumerate(bits.split("0")) for _ in ones]
        n, left = len(groups), min(e, count - number * e)
        must(n <= k, "rounds", "more than is kept")
        indices = [256 * group + int(place) for group, place in zip(groups, block[4 * k :], strict=False)]
        must(all(a < b for a, b in pairwise(indices)) and (not n or indices[-1] < left), "rounds", "an index is none")
        values = block[: 4 * n].copy().view("<f4")
        must((values != 0).all() and not block[4 * n : 4 * k].any(), "rounds", "a value is none")
        must(not block[4 * k + n : 5 * k].any(), "rounds", "a place is none")
        found[number, indices] = values
    return found.reshape(-1)[:count]


def decoded(delta: bytes, codec: str, plain: bytes, count: int, fraction: str = "0.01") -> NDArray[np.float32]:
    """#codecs: the numbers of a delta blob, whose float32 header would be `plain`.

    Raises:
        Failed: another header or size, or a block that the codec does not allow.
    """
    if codec == "float32":
        must(delta.startswith(plain) and len(delta) == len(plain) + 4 * count, "rounds", "wrong-tensors")
        return np.frombuffer(delta, "<f4", offset=len(plain))
    block, numbers, largest = layout(codec, fraction)
    size = -(-count // numbers) * block
    head = packed_header(codec, size, max(128, block))
    must(delta.startswith(head) and len(delta) == len(head) + size, "rounds", "wrong-tensors")
    data = np.frombuffer(delta, np.uint8, offset=len(head))
    if codec == "bfloat16":
        return np.left_shift(data.view("<u2"), 16, dtype=np.uint32).view(np.float32)
    blocks = data.reshape(-1, block)
    if codec == "topk":
        return sparse(blocks, largest, numbers, count)
    scales, codes = blocks[:, :4].copy().view("<f4"), blocks[:, 4:].view(np.int8)
    if codec == "int4":
        codes = np.stack([codes << 4 >> 4, codes >> 4], axis=2).reshape(len(blocks), numbers)
    zero, most = scales.view(np.uint32) == 0, {"int8": 2.0**121, "int4": 2.0**125}[codec]
    must((zero | ((scales >= 2.0**-126) & (scales <= most))).all(), "rounds", "a scale is none")
    must((codes >= -largest).all() and not codes[zero[:, 0]].any(), "rounds", "a code is none")
    must(not codes.reshape(-1)[count:].any(), "rounds", "padding")
    return (scales * codes.astype(np.float32)).reshape(-1)[:count]


def packed_header(codec: str, size: int, alignment: int = 128) -> bytes:
    """#codecs: the bytes before so many encoded ones."""
    text = json.dumps({codec: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}, separators=(",", ":"))
    head = text.encode() + b" " * (-(8 + len(text)) % alignment)
    return len(head).to_bytes(8, "little") + head


def encoded_size(codec: str, plain: bytes, count: int) -> int:
    """#codecs: bytes of a delta blob, whose float32 header would be `plain`."""
    if codec == "float32":
        return len(plain) + 4 * count
    block, numbers = {"bfloat16": (2, 1), "int8": (128, 124), "int4": (64, 120)}[codec]
    size = -(-count // numbers) * block
    return len(packed_header(codec, size)) + size


def encoded(values: NDArray[np.float32], codec: str, plain: bytes) -> bytes:
    """#codecs, encoding: the one blob of these finite numbers."""
    if codec == "float32":
        return plain + values.astype("<f4").tobytes()
    if codec == "bfloat16":
        bits = values.view(np.uint32).astype(np.uint64)
        upper = (bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)
        infinite = (upper & np.uint64(0x7FFF)) >= 0x7F80
        data = np.where(infinite, (upper & np.uint64(0x8000)) | np.uint64(0x7F7F), upper).astype("<u2").tobytes()
        return packed_header(codec, len(data)) + data
    most, numbers, top = {"int8": (127, 124, 121), "int4": (7, 120, 125)}[codec]
    parts = []
    for at in range(0, len(values), numbers):
        x = np.zeros(numbers, np.float32)
        x[: len(values[at : at + numbers])] = values[at : at + numbers]
        scale = np.abs(x).max() / np.float32(most)
        scale = np.float32(0) if scale < 2.0**-126 else np.minimum(scale, np.float32(2.0**top))
        codes = np.zeros(numbers) if scale == 0 else np.clip(np.rint(x / scale), -most, most)
        signed = codes.astype(np.int64)
        if codec == "int4":
            signed = (signed[::2] & 15) | (signed[1::2] & 15) << 4
        parts.append(np.float32(scale).astype("<f4").tobytes() + (signed & 255).astype(np.uint8).tobytes())
    data = b"".join(parts)
    return packed_header(codec, len(data)) + data


def trainable_header(manifest: list[Json]) -> tuple[bytes, int]:
    """#tensors: the bytes before a float32 delta's numbers, and how many of these there are."""
    head, size = header([tensor for tensor in manifest if tensor["group"] == "trainable"])
    return head, size // 4


def corrects(plan: Json) -> bool:
    """#plan: whether institutions correct their steps by control variates."""
    return bool(plan["local"].get("correction", {"type": "none"})["type"] == "scaffold")


KEPT = {"momentum": "b", "nesterov": "b", "adam": "mv", "adamw": "mv", "yogi": "mv", "adagrad": "v"}
SLOT_NAMES = {"b": "momentum", "m": "mean", "v": "square", "r": "residual", "c": "control"}


class State:
    """#server-state: what a run's rounds hand on, read and written by the layout."""

    def __init__(self, plan: Json, count: int) -> None:
        optimizer, downlink = plan["server_optimizer"]["type"], (plan.get("downlink") or {"type": "float32"})["type"]
        self.letters = KEPT.get(optimizer, "") + ("" if downlink == "float32" else "r")
        if corrects(plan):
            self.letters = "c"
        self.powers = np.ones(2 if optimizer in ("adam", "adamw") else 0)
        numbers = {"int8": 124, "int4": 120}.get(downlink, 1)
        self.b = min(65536 - 65536 % numbers, count)
        self.shape = (math.ceil(count / self.b), len(self.letters), self.b)
        self.count, first = count, float(plan["server_optimizer"].get("initial_square", 0))
        self.of = {letter: np.full(count, first if letter == "v" else 0, np.float32) for letter in self.letters}

    @property
    def head(self) -> bytes:
        k = 8 * len(self.powers)
        end = k + 4 * math.prod(self.shape)
        names = "beta1_power beta2_power" if k else "", " ".join(SLOT_NAMES[letter] for letter in self.letters)
        text = json.dumps(
            {
                "__metadata__": {"scalars": names[0], "slots": names[1]},
                "scalars": {"dtype": "F64", "shape": [len(self.powers)], "data_offsets": [0, k]},
                "state": {"dtype": "F32", "shape": list(self.shape), "data_offsets": [k, end]},
            },
            separators=(",", ":"),
        ).encode()
        text += b" " * (-(8 + len(text)) % 64)
        return len(text).to_bytes(8, "little") + text

    @property
    def size(self) -> int | None:
        return len(self.head) + 8 * len(self.powers) + 4 * math.prod(self.shape) if self.letters else None

    def read(self, blob: bytes) -> None:
        must(blob.startswith(self.head) and len(blob) == self.size, "rounds", "wrong-tensors")
        self.powers = np.frombuffer(blob, "<f8", offset=len(self.head), count=len(self.powers)).copy()
        fits = np.isfinite(self.powers).all() and ((self.powers >= 0) & (self.powers <= 1)).all()
        must(bool(fits), "rounds", "wrong-tensors")
        table = np.frombuffer(blob, "<f4", offset=len(self.head) + 8 * len(self.powers)).reshape(self.shape)
        for at, letter in enumerate(self.letters):
            self.of[letter] = np.concatenate([row[at] for row in table])[: self.count]

    def written(self) -> bytes | None:
        if not self.letters:
            return None
        parts = [self.head, self.powers.astype("<f8").tobytes()]
        for at in range(0, self.count, self.b):
            for letter in self.letters:
                piece = self.of[letter][at : at + self.b].astype("<f4").tobytes()
                parts.append(piece.ljust(4 * self.b, b"\0"))
        return b"".join(parts)


def server_step(said: Json, g: NDArray[np.float32], base: NDArray[np.float32], state: State) -> NDArray[np.float32]:
    """#server-optimizers: u; the state becomes the next one."""
    f = {name: np.float32(float(value)) for name, value in said.items() if name not in ("type", "bias_correction")}
    kind, of = said["type"], state.of
    if kind == "sgd":
        return f["learning_rate"] * g
    if "b" in of:
        of["b"] = f["momentum"] * of["b"] + g
        return f["learning_rate"] * (g + f["momentum"] * of["b"] if kind == "nesterov" else of["b"])
    q = g * g
    if kind == "adagrad":
        of["v"] = of["v"] + q
        return f["learning_rate"] * (g / (np.sqrt(of["v"]) + f["tau"]))
    one, two = (np.float32(1 - float(said[name])) for name in ("beta1", "beta2"))
    of["m"] = f["beta1"] * of["m"] + one * g
    if kind == "yogi":
        step = two * q
        signed = np.where(of["v"] > q, of["v"] - step, of["v"] + step)
        of["v"] = np.where(of["v"] == q, of["v"], signed)
        return f["learning_rate"] * (of["m"] / (np.sqrt(of["v"]) + f["tau"]))
    of["v"] = f["beta2"] * of["v"] + two * q
    state.powers = state.powers * np.array([float(said["beta1"]), float(said["beta2"])])
    s1, s2 = f["learning_rate"], np.float32(1)
    if said["bias_correction"]:
        s1 = np.float32(float(said["learning_rate"]) / (1 - state.powers[0]))
        s2 = np.float32(np.sqrt(1 - state.powers[1]))
    u = s1 * (of["m"] / (np.sqrt(of["v"]) / s2 + f["epsilon"]))
    if kind == "adamw":
        u = u - np.float32(float(said["learning_rate"]) * float(said["weight_decay"])) * base
    return u


def sound(numbers: NDArray[np.float32], longest: str) -> NDArray[np.float32]:
    """#what-must-hold-of-a-delta, of decoded numbers."""
    d = numbers.astype(np.float64)
    must(np.isfinite(d).all(), "rounds", "non-finite-delta")
    must(np.sqrt(total(d * d)) <= float(longest), "rounds", "delta-too-long")
    return numbers


def outputs(
    plan: Json,
    base: bytes,
    deltas: list[tuple[int, bytes]],
    state: bytes | None = None,
    controls: tuple[int, list[bytes]] = (0, []),
) -> tuple[bytes, bytes | None, bytes | None]:
    """#rules, #server-optimizers and #downlink, of (weight, delta blob) with institutions in ascending order.

    Args:
        controls: with scaffold, how many accepted, and the control blobs in the same order.

    Returns:
        model, applied_delta and server_state; None where the plan makes none.

    Raises:
        Failed: the inputs give no model.
    """
    begin, count = trainable_header(plan["manifest"])
    start, whole = header([it for it in plan["manifest"] if it["group"] != "personal"])
    must(
        base.startswith(start) and len(base) == len(start) + whole, "rounds", "the base model is none of this manifest"
    )
    codec = plan["plan"].get("codec", {"type": "float32"})
    fraction, longest = codec.get("fraction", "0.01"), plan["plan"]["max_delta_l2"]
    read = [sound(decoded(delta, codec["type"], begin, count, fraction), longest) for _, delta in deltas]
    old = np.frombuffer(base, "<f4", offset=len(start), count=count)
    downlink, applied, kept = plan["plan"].get("downlink"), None, State(plan["plan"], count)
    if state is not None:
        kept.read(state)
    with np.errstate(over="ignore", invalid="ignore"):
        g = combined(plan["plan"]["rule"], [num_tokens for num_tokens, _ in deltas], read)
        added = server_step(plan["plan"]["server_optimizer"], g, old, kept)
        if downlink is not None:
            t = added + kept.of["r"] if "r" in kept.of else added
            must(np.isfinite(t).all(), "rounds", "model-overflow")
            applied = encoded(t, downlink["type"], begin)
            added = decoded(applied, downlink["type"], begin, count)
            kept.of |= {"r": t - added} if "r" in kept.of else {}
        new = old + added
        if corrects(plan["plan"]):
            longest = plan["plan"]["local"]["correction"]["max_control_l2"]
            moved = [sound(decoded(control, "float32", begin, count), longest) for control in controls[1]]
            k = combined({"type": "weighted-mean"}, [1] * len(moved), moved)
            kept.of["c"] = kept.of["c"] + np.float32(len(moved) / controls[0]) * k
    must(all(np.isfinite(each).all() for each in (g, new, *kept.of.values())), "rounds", "model-overflow")
    return start + new.astype("<f4").tobytes() + base[len(start) + 4 * count :], applied, kept.written()
