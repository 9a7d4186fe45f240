"""Codecs: how a delta's numbers become bytes and numbers again, chosen by the plan's `codec.type` (docs/protocol.md#codecs).

    float32     as they are                                          4 bytes a number
    bfloat16    the upper half of a float32                          2
    int8        a scale, then 124 whole numbers from -127 to 127     1.03
    int4        a scale, then 120 whole numbers from -7 to 7         0.53
    topk        the largest of each block, and where they are        5.2 a number that is kept: 0.05 at 1 %

To add one: a module here with a class that is a `DeltaCodec`, a section in common.plan.model, a row in `CODECS`.
"""

from __future__ import annotations

from common.codecs.base import DeltaCodec, Fault
from common.codecs.bfloat16 import Bfloat16Codec
from common.codecs.blockwise import BlockwiseCodec
from common.codecs.float32 import Float32Codec
from common.codecs.int4 import Int4Codes
from common.codecs.int8 import Int8Codes
from common.codecs.topk import TopkCodec
from common.plan import codecs as plan

CODECS: dict[str, DeltaCodec] = {
    "float32": Float32Codec(),
    "bfloat16": Bfloat16Codec(),
    "int8": BlockwiseCodec("int8", Int8Codes()),
    "int4": BlockwiseCodec("int4", Int4Codes()),
    "topk": TopkCodec(plan.TopkCodec().fraction),
}
"""By `codec.type`, with the parameters of a plan that names none. They hold nothing that changes: any thread may use them."""


def codec(section: plan.Codec) -> DeltaCodec:
    """The codec that a plan chose."""
    return TopkCodec(section.fraction) if isinstance(section, plan.TopkCodec) else CODECS[section.type]


__all__ = ["CODECS", "DeltaCodec", "Fault", "codec"]
