"""The plan's `codec` and `downlink`: how deltas and applied deltas travel."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from common.plan.fields import Number, PlanSection


class Float32Codec(PlanSection):
    """Deltas as they are: 4 bytes a number."""

    type: Literal["float32"] = "float32"


class Bfloat16Codec(PlanSection):
    """The upper half of each float32: 2 bytes a number. What is lost goes into the institution's next delta."""

    type: Literal["bfloat16"] = "bfloat16"


class Int8Codec(PlanSection):
    """Whole numbers from -127 to 127, 124 to a scale: 26 % of float32. What is lost goes into the institution's next delta."""

    type: Literal["int8"] = "int8"


class Int4Codec(PlanSection):
    """Whole numbers from -7 to 7, 120 to a scale: 14 % of float32. What is lost goes into the institution's next delta."""

    type: Literal["int4"] = "int4"


class TopkCodec(PlanSection):
    """The largest numbers of each block as they are: 1.3 % of float32 at 1 %. The others go into the next delta."""

    type: Literal["topk"] = "topk"
    fraction: Annotated[
        Number, Field(ge=Decimal("0.001"), le=Decimal("0.5"), description="Share of a delta's numbers that travels.")
    ] = Decimal("0.01")


Codec = Annotated[Float32Codec | Bfloat16Codec | Int8Codec | Int4Codec | TopkCodec, Field(discriminator="type")]
DownlinkCodec = Annotated[Float32Codec | Bfloat16Codec | Int8Codec | Int4Codec, Field(discriminator="type")]
"""What a round adds to the model, as it travels; `float32` among them drops nothing, and has no residual."""
