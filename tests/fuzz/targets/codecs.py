"""A delta's encoded numbers, by every codec: 1 byte chooses it, 2 say how many numbers there are, the rest is what they are.

What is taken is finite; what is taken as topk is the one way to write its numbers.
"""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np

from common import tensors
from common.codecs import CODECS, DeltaCodec
from common.codecs.topk import TopkCodec
from common.reduce import inspect_delta
from common.reduce.selftest import MemoryBlob, numbers
from common.statements.kinds import Tensor
from tests.fuzz.harness import Target

CHOSEN: tuple[DeltaCodec, ...] = (*CODECS.values(), TopkCodec(Decimal("0.001")), TopkCodec(Decimal("0.5")))
MOST_ELEMENTS = 2_000


def entry(data: bytes) -> None:
    if len(data) < 3:
        return
    codec, elements = CHOSEN[data[0] % len(CHOSEN)], int.from_bytes(data[1:3], "big") % MOST_ELEMENTS + 1
    manifest = (Tensor(name="w", shape=(elements,)),)
    size = codec.encoded_size(manifest) - len(codec.header(manifest))
    body = data[3 : 3 + size].ljust(size, b"\0")
    with np.errstate(all="ignore"):
        decoded = codec.decode(memoryview(body), np.empty(codec.elements(size), np.float32))
    facts = inspect_delta(
        MemoryBlob(codec.header(manifest) + body), tensors.trainable_header(manifest), max_l2=math.inf, codec=codec
    )
    assert facts.elements == elements
    assert np.isfinite(decoded[:elements]).all()
    if isinstance(codec, TopkCodec):
        assert bytes(codec.encode(decoded[:elements])) == body


def seeds() -> list[bytes]:
    found = []
    for index, codec in enumerate(CHOSEN):
        for elements in (1, 130, 1_000):
            values = numbers(index, elements)
            found.append(bytes([index]) + (elements - 1).to_bytes(2, "big") + bytes(codec.encode(values)))
    return found


TARGET = Target(entry, seeds(), max_bytes=8_192)
