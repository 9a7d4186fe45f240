"""Codecs: how a delta's numbers become bytes, chosen by the plan's `codec.type`.

To add one: a module here with a class that is a `DeltaCodec`, a section in common.plan.model, a row in `CODECS`.
"""

from __future__ import annotations

from common.codecs.base import DeltaCodec
from common.codecs.float32 import Float32Codec
from common.plan import model as plan

CODECS: dict[str, DeltaCodec] = {"float32": Float32Codec()}


def codec(section: plan.Codec) -> DeltaCodec:
    """The codec that a plan chose."""
    return CODECS[section.type]


__all__ = ["CODECS", "DeltaCodec", "codec"]
