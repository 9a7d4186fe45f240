"""A model's `attention`: which earlier tokens a token sees."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.plan.fields import PlanSection

_Tokens = Annotated[int, Field(ge=1, le=131_072)]


class FullAttention(PlanSection):
    """Every token before it."""

    type: Literal["full"] = "full"


class SlidingWindow(PlanSection):
    """The newest tokens up to itself, in every block (arXiv:2310.06825); what lies further back comes through deeper blocks."""

    type: Literal["sliding-window"] = "sliding-window"
    window: Annotated[_Tokens, Field(description="Tokens seen, itself included.")] = 64


class BlockSparse(PlanSection):
    """Text in blocks: a token sees the first ones and the newest ones (arXiv:1904.10509, arXiv:2007.14062 without chance).

    config.json has no word for it: others who load an export compute full attention, and only this package the sparse one.
    """

    type: Literal["block-sparse"] = "block-sparse"
    block: Annotated[_Tokens, Field(description="Tokens a block.")] = 16
    local_blocks: Annotated[int, Field(ge=1, le=4096, description="Newest blocks seen, its own included.")] = 2
    global_blocks: Annotated[int, Field(ge=0, le=4096, description="First blocks, which every token sees.")] = 1


Attention = Annotated[FullAttention | BlockSparse, Field(discriminator="type")]
WindowedAttention = Annotated[FullAttention | SlidingWindow | BlockSparse, Field(discriminator="type")]
"""Of architectures whose configuration in transformers knows a window."""
