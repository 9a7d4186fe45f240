"""The plan's `model`: the architecture that is trained, and its sizes."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.plan.fields import Number, PlanSection


class GPT2(PlanSection):
    """GPT-2: decoder-only, learned positions, tied embeddings (Radford et al. 2019)."""

    type: Literal["gpt2"] = "gpt2"
    n_layer: Annotated[int, Field(ge=1, le=200, description="Transformer blocks.")] = 3
    n_head: Annotated[int, Field(ge=1, le=256, description="Attention heads; must divide n_embd.")] = 4
    n_embd: Annotated[int, Field(ge=8, le=32768, description="Width of the model.")] = 128
    n_positions: Annotated[int, Field(ge=8, le=131072, description="Longest context, tokens.")] = 128
    dropout: Annotated[Number, Field(ge=0, lt=1, description="Residual, embedding and attention dropout.")] = Decimal(0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> GPT2:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head must divide n_embd, got {self.n_head} and {self.n_embd}")
        return self

    @property
    def context_tokens(self) -> int:
        return self.n_positions

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """The linear layers of a transformer block, by their path in it."""
        return ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class Llama(PlanSection):
    """Llama: decoder-only, rotary positions, RMSNorm, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    type: Literal["llama"] = "llama"
    num_hidden_layers: Annotated[int, Field(ge=1, le=200, description="Transformer blocks.")] = 3
    num_attention_heads: Annotated[
        int, Field(ge=1, le=256, description="Attention heads; must divide hidden_size.")
    ] = 4
    num_key_value_heads: Annotated[
        int, Field(ge=1, le=256, description="Key and value heads; must divide num_attention_heads.")
    ] = 4
    hidden_size: Annotated[int, Field(ge=8, le=32768, description="Width of the model.")] = 128
    intermediate_size: Annotated[int, Field(ge=8, le=131072, description="Width inside the feed-forward blocks.")] = 344
    max_position_embeddings: Annotated[int, Field(ge=8, le=131072, description="Longest context, tokens.")] = 128
    tie_word_embeddings: Annotated[bool, Field(description="Input and output embeddings are one tensor.")] = True

    @model_validator(mode="after")
    def _heads_divide(self) -> Llama:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads must divide hidden_size")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_key_value_heads must divide num_attention_heads")
        return self

    @property
    def context_tokens(self) -> int:
        return self.max_position_embeddings

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """The linear layers of a transformer block, by their path in it."""
        attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
        return (*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


Model = Annotated[GPT2 | Llama, Field(discriminator="type")]
