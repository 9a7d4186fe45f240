"""The plan's `weighting`: what a delta counts for in its round, a whole number below 2^29 from what its contribution says.

    weighting: {type: capped-tokens, cap: 100000}
    plan.weighting.of(num_tokens, num_bytes)

Languages and tokenizers differ in how many tokens say the same, and institutions in how much text they have.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common.plan.fields import PlanSection
from common.plan.local import MAX_NUM_TOKENS

EQUAL_WEIGHT = 2**16
"""What each delta counts for with `equal`: any power of two gives the same bits, and a large one leaves late deltas less."""


class TokensWeighting(PlanSection):
    """A delta weighs the tokens that it was trained on: FedAvg (arXiv:1602.05629)."""

    type: Literal["tokens"] = "tokens"

    @property
    def words(self) -> str:
        """Behind "weighted by"."""
        return "tokens"

    def of(self, num_tokens: int, num_bytes: int | None) -> int:
        """A delta's weight."""
        return num_tokens


class CappedTokensWeighting(PlanSection):
    """A delta weighs the tokens that it was trained on, and no more than `cap`: nobody is more than so much of the mean."""

    type: Literal["capped-tokens"] = "capped-tokens"
    cap: Annotated[int, Field(ge=1, le=MAX_NUM_TOKENS, description="Tokens beyond these count for nothing.")]

    @property
    def words(self) -> str:
        """Behind "weighted by"."""
        return f"tokens up to {self.cap:,}"

    def of(self, num_tokens: int, num_bytes: int | None) -> int:
        """A delta's weight."""
        return min(num_tokens, self.cap)


class BytesWeighting(PlanSection):
    """A delta weighs the bytes of text that its tokens say: the same for all languages that a tokenizer cuts differently."""

    type: Literal["bytes"] = "bytes"
    max_bytes_a_token: Annotated[
        int, Field(ge=1, le=64, description="Bytes beyond these a token, on the mean of a round, count for nothing.")
    ] = 8

    @property
    def words(self) -> str:
        """Behind "weighted by"."""
        return "bytes of text"

    def of(self, num_tokens: int, num_bytes: int | None) -> int:
        """A delta's weight.

        Raises:
            ValueError: the contribution says no bytes; the ledger's rules let none such in.
        """
        if num_bytes is None:
            raise ValueError("a contribution to a round that is weighted by bytes says none")
        return num_bytes


class EqualWeighting(PlanSection):
    """Every delta weighs the same."""

    type: Literal["equal"] = "equal"

    @property
    def words(self) -> str:
        """Behind "weighted by"."""
        return "heads, each the same"

    def of(self, num_tokens: int, num_bytes: int | None) -> int:
        """A delta's weight."""
        return EQUAL_WEIGHT


Weighting = Annotated[
    TokensWeighting | CappedTokensWeighting | BytesWeighting | EqualWeighting, Field(discriminator="type")
]
