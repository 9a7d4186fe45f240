"""The beginning of a delta or a model: a safetensors header that must be the manifest's, and what is said of others."""

from __future__ import annotations

import json
import math

from common import tensors
from common.reduce import inspect_delta
from common.reduce.selftest import MemoryBlob
from common.reduce.window import read_head
from common.statements.kinds import Tensor
from tests.fuzz.harness import Target

MANIFEST = (
    Tensor(name="wte.weight", shape=(3, 2)),
    Tensor(name="scale", shape=()),
    Tensor(name="mask", shape=(2,), group="frozen"),
)
EXPECTED = tensors.trainable_header(MANIFEST)


def entry(data: bytes) -> None:
    blob = MemoryBlob(data)
    head = read_head(blob)
    assert data.startswith(head)
    tensors.check_header(head, EXPECTED)
    assert data.startswith(EXPECTED)
    inspect_delta(blob, EXPECTED, max_l2=math.inf)


def seeds() -> list[bytes]:
    entries = json.loads(EXPECTED[8:])
    nested = json.dumps(entries | {"__metadata__": {"format": "pt", "deep": [[[[1]]]]}}).encode()
    return [
        EXPECTED + bytes(28),
        tensors.model_header(MANIFEST) + bytes(36),
        len(nested).to_bytes(8, "little") + nested + bytes(28),
    ]


TARGET = Target(entry, seeds(), max_bytes=4_096)
